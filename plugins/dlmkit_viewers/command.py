"""``dlmkit view``: watch one recorded text come into being."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlmkit import documents
from dlmkit.cli.options import PART
from dlmkit.cli.output import result, say
from dlmkit.errors import UsageError
from dlmkit.registry.lookup import Registry

if TYPE_CHECKING:
    from dlmkit.core.exits import ExitCriterion
    from dlmkit.exits.trace import Trace


def _gone(option: typer.CallbackParam, value: object) -> None:
    if value:
        raise UsageError(
            f"{option.opts[0]}: there is no such option any more: --html FILE writes a page that "
            "plays the text, light or dark as its reader's system is"
        )


def view(
    trace: Annotated[
        Path,
        typer.Argument(metavar="TRACE", help="A file of `dlmkit trace --positions entropy`."),
    ],
    row: Annotated[int, typer.Option(min=0, help="Which text of the trace, by its index.")] = 0,
    by: Annotated[
        str, typer.Option(metavar="STATISTIC", help="What colours show: one kept by position.")
    ] = "entropy",
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--exit", metavar=PART, help="Mark where this rule would have halted. Repeatable."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with a player instead.")
    ] = None,
    speed: Annotated[float, typer.Option(help="Steps per second of the player.")] = 8.0,
    gif: Annotated[Path | None, typer.Option(hidden=True, callback=_gone)] = None,
    live: Annotated[bool, typer.Option("--live", hidden=True, callback=_gone)] = False,
    dark: Annotated[bool, typer.Option("--dark", hidden=True, callback=_gone)] = False,
) -> None:
    """Watch one text of a trace: a line per step, or a page with a player.

    Nothing is sampled again: rules are replayed on the recorded run, which gives exactly what they
    would have done.
    """
    from dlmkit.exits.trace_file import load_trace
    from dlmkit_viewers.film import film

    if not 0.0 < speed <= 100.0:
        raise UsageError(f"--speed {speed:g}: expected steps per second, above 0 and at most 100")
    documents.check_new(html)
    recorded = load_trace(trace)
    shown = film(recorded, row, by, _rules(rules or (), recorded))
    if html is None:
        result("\n".join(shown.lines()))
        return
    from dlmkit_viewers.player import player

    documents.write_new(html, player(shown, speed))
    say(f"wrote {html}")


def _rules(texts: Sequence[str], recorded: Trace) -> Mapping[str, ExitCriterion]:
    from dlmkit.core.context import BuildContext
    from dlmkit.exits.rules import closed

    registry, context = Registry.load(), BuildContext(length=recorded.ids.shape[2])
    return {text: closed(text, "--exit", registry, context) for text in texts}

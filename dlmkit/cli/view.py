"""``dlmkit view``: watch one recorded text come into being."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlmkit.cli.options import PART
from dlmkit.cli.output import result, say, writing
from dlmkit.shown import console

if TYPE_CHECKING:
    from dlmkit.core.exits import ExitCriterion
    from dlmkit.exits.trace import Trace


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
    live: Annotated[
        bool, typer.Option("--live", help="Play it in the terminal, files or not.")
    ] = False,
    gif: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an animation instead.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with a player instead.")
    ] = None,
    speed: Annotated[float, typer.Option(help="Steps a second.")] = 8.0,
    dark: Annotated[bool, typer.Option("--dark", help="The animation on a dark page.")] = False,
) -> None:
    """Watch one text of a trace: in the terminal, as a GIF, or as HTML with a slider.

    Where stdout is no terminal, a line a step is printed. Nothing is sampled again: rules are
    replayed on the recorded run, which gives exactly what they would have done.
    """
    from dlmkit.analysis import terminal
    from dlmkit.analysis.film import film
    from dlmkit.errors import UsageError
    from dlmkit.exits.trace_file import check_new, load_trace

    if not 0.0 < speed <= 100.0:
        raise UsageError(f"--speed {speed:g}: expected steps a second, above 0 and at most 100")
    screen = console()
    if live and not screen.is_terminal:
        raise UsageError("--live: stdout is no terminal; without it a line a step is printed")
    files = [file for file in (gif, html) if file is not None]
    for file in files:
        check_new(file)
    recorded = load_trace(trace)
    shown = film(recorded, row, by, _rules(rules or (), recorded))
    if gif is not None:
        from dlmkit.analysis.gif import animation
        from dlmkit.report import save

        save(animation(shown, speed, "dark" if dark else "light"), gif)
    if html is not None:
        from dlmkit.analysis.player import player
        from dlmkit.report import save

        save(player(shown, speed), html)
    for file in files:
        say(f"wrote {file}")
    if live or (not files and screen.is_terminal):
        with writing():
            terminal.play(shown, screen, speed)
    elif not files:
        result("\n".join(terminal.lines(shown)))


def _rules(texts: Sequence[str], recorded: Trace) -> Mapping[str, ExitCriterion]:
    from dlmkit.core.context import BuildContext
    from dlmkit.exits.rules import closed
    from dlmkit.registry.lookup import Registry

    registry, context = Registry.load(), BuildContext(length=recorded.ids.shape[2])
    return {text: closed(text, "--exit", registry, context) for text in texts}

"""``dlmkit plugins``: what is installed, what came of loading it, checks, and new ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlmkit.cli import options
from dlmkit.cli.commands import top, unreachable
from dlmkit.cli.output import answer, columns, result, say
from dlmkit.errors import PluginError, UsageError
from dlmkit.registry.lookup import Registry, notes
from dlmkit.registry.scaffold import write

if TYPE_CHECKING:
    from dlmkit.testing.suite import CheckOutcome

plugins = typer.Typer(no_args_is_help=True, help="The plugins that are installed.")


@plugins.command("list")
def list_plugins(
    as_json: Annotated[bool, options.json("One JSON list.")] = False,
) -> None:
    """List every plugin: loaded, failed or blocked, and why. Exits 0 whatever failed.

    Each of another package is loaded in a process of its own, for up to 20 seconds, so that one
    that ends it or hangs is listed as failed like any other.
    """
    from dlmkit.registry import listing

    installed = listing.plugins()
    for note in (*notes(installed), *unreachable(installed)):
        say(f"note: {note}")
    rows = [("NAME", "STATE", "PACKAGE", "PROVIDES")]
    for plugin in installed:
        count = len(plugin.provides)
        provides = plugin.reason or f"{count} part{'s' * (count != 1)}"
        rows.append((plugin.name, plugin.state, plugin.package, provides))
    answer(as_json, [asdict(plugin) for plugin in installed], columns(rows))


@plugins.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name.")],
    as_json: Annotated[bool, options.json("One JSON list.")] = False,
) -> None:
    """Run the conformance kit over a plugin and its parts: seconds per part, offline, on the CPU
    and on a pretend accelerator that refuses CPU tensors.

    Exits 0 if nothing failed, 1 if a check failed or none ran, 4 if no such plugin is installed.
    """
    from dlmkit.testing.suite import CheckOutcome, run

    registry = Registry.load()
    if name not in [plugin.name for plugin in registry.loaded]:
        raise PluginError(
            f"no plugin named {name!r} is installed ('dlmkit plugins list' shows what there is)"
        )
    outcomes = run(name, registry)
    hidden = unreachable(plugin for plugin in registry.plugins if plugin.name == name)
    outcomes += [CheckOutcome("plugin", "commands-are-reached", "failed", why) for why in hidden]
    answer(as_json, [asdict(outcome) for outcome in outcomes], lambda: _report(outcomes))
    if any(outcome.outcome == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _report(outcomes: list[CheckOutcome]) -> str:
    """One line per component, and one for every check that failed, passed or not as expected."""
    lines = []
    for component in dict.fromkeys(outcome.component for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.component == component]
        counts = Counter(outcome.outcome for outcome in mine)
        lines.append(f"{component}: {', '.join(f'{n} {state}' for state, n in counts.items())}")
        lines += [
            f"  {outcome.check} {outcome.outcome}: {outcome.message}"
            for outcome in mine
            if outcome.outcome in ("failed", "expected")
        ]
        reasons = {outcome.message for outcome in mine if outcome.outcome == "skipped"}
        lines += [f"  skipped: {reason}" for reason in sorted(reasons)]
    return "\n".join(lines)


@plugins.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plugin's name, kept verbatim.")],
    kind: Annotated[str, typer.Option("--kind", help="The kind of its part, or importer.")],
) -> None:
    """Write a complete plugin package, with one working part, into a new folder dlmkit-NAME.

    Exits 2 for a bad name or kind, or if the folder exists; it never asks anything.
    """
    registry = Registry.load()
    if name in top():
        raise UsageError(f"{name!r} is a command of dlmkit itself; choose another name")
    folder = write(name, kind, registry, Path())
    if name in [plugin.name for plugin in registry.loaded]:
        say(f"note: a plugin named {name!r} is installed; only one of that name can be")
    say(f"next: pip install -e {folder}, then dlmkit plugins check {name}")
    result(str(folder))

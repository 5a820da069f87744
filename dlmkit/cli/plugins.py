"""``dlmkit plugins``: what is installed, and what came of loading it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from dlmkit.cli.output import columns, result, result_json, say

plugins = typer.Typer(no_args_is_help=True, help="The plugins that are installed.")


@plugins.callback()
def _group() -> None: ...


@plugins.command("list")
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """List every plugin: loaded, failed or blocked, and why. Exits 0 whatever failed."""
    from dlmkit.registry import Registry

    registry = Registry.load()
    for note in registry.notes:
        say(f"note: {note}")
    if as_json:
        result_json([asdict(plugin) for plugin in registry.plugins])
        return
    rows = [("NAME", "STATE", "PACKAGE", "PROVIDES")]
    for plugin in registry.plugins:
        count = len(plugin.provides)
        provides = plugin.reason or f"{count} part{'s' * (count != 1)}"
        package = f"{plugin.distribution} {plugin.version}"
        rows.append((plugin.name, plugin.state, package, provides))
    result(columns(rows))

"""``dlmkit models``: the trained models that plugins ship."""

from __future__ import annotations

from typing import Annotated

import typer

from dlmkit.cli.output import columns, result, result_json, say

models = typer.Typer(no_args_is_help=True, help="The trained models that plugins ship.")


@models.callback()
def _group() -> None: ...


@models.command("list")
def list_models(
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of {name, summary, package, path}.")
    ] = False,
) -> None:
    """List the models that dlmkit sample and dlmkit.load know by name."""
    from dlmkit.registry.lookup import Registry

    registry = Registry.load()
    packages = {plugin.name: plugin.package for plugin in registry.loaded}
    rows = [
        {
            "name": name,
            "summary": model.summary,
            "package": packages[name.partition(":")[0]],
            "path": str(model.path),
        }
        for name, model in sorted(registry.models().items())
    ]
    if as_json:
        result_json(rows)
    elif rows:
        cells = [(row["name"], row["package"], row["summary"]) for row in rows]
        result(columns([("NAME", "PACKAGE", "SUMMARY"), *cells]))
    else:
        say("no installed plugin ships a model; a run's folder is a model too")

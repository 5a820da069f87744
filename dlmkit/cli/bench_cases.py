"""``dlmkit bench list`` and ``run``: the bench cases of plugins."""

from __future__ import annotations

from typing import Annotated

import typer

from dlmkit import documents
from dlmkit.cli import options
from dlmkit.cli.output import columns, listing, result
from dlmkit.errors import UsageError
from dlmkit.registry.lookup import Registry

NONE = "no installed plugin brings a bench case (CONTRIBUTING.md: register_benchmarks)"


def list_cases(
    as_json: Annotated[bool, options.json("A list of {name, summary, package}.")] = False,
) -> None:
    """List the bench cases of plugins, and the package that brought each."""
    registry = Registry.load()
    cases = [
        {"name": name, "summary": case.summary, "package": registry.package(name)}
        for name, case in sorted(registry.benchmarks().items())
    ]
    listing(as_json, cases, ("name", "package", "summary"), NONE)


def run_cases(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PLUGIN:CASE]...", help="Cases.  [default: all]"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timing rounds, interleaved.")] = 7,
    device: options.Device = "auto",
    json_file: options.JsonFile = None,
) -> None:
    """Time the bench cases of plugins: all are set up and called once before the first round.

    The code of plugins runs as it is; a case that takes a device is given it. Two files of --json
    go into `dlmkit bench compare`.
    """
    from dlmkit import devices
    from dlmkit.bench import document
    from dlmkit.bench.plugin_cases import measure, plugin_cases, rows
    from dlmkit.training.memory import keep_freed

    keep_freed()
    documents.check_writable(json_file)
    cases = plugin_cases(Registry.load(), names or ())
    if not cases:
        raise UsageError(NONE)
    content = measure(cases, rounds, devices.choose(device))
    result(columns(list(rows(content))))
    result(f"measured on {content['dlmkit']['protocol']['device']}")
    if json_file is not None:
        document.write(content, json_file)

"""``dlmkit models``: those that plugins ship, and released ones that importers open."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dlmkit.cli import options
from dlmkit.cli.options import Device
from dlmkit.cli.output import answer, columns, listing, result, result_json, say
from dlmkit.errors import GateFailed
from dlmkit.registry.lookup import Registry

models = typer.Typer(
    no_args_is_help=True, help="Models that plugins ship, and released ones that they open."
)


@models.command("list")
def list_models(
    as_json: Annotated[bool, options.json("A list of {name, summary, package, path}.")] = False,
) -> None:
    """List the models that dlmkit sample and dlmkit.load know by name."""
    registry = Registry.load()
    rows = [
        {
            "name": name,
            "summary": model.summary,
            "package": registry.package(name),
            "path": str(model.path),
        }
        for name, model in sorted(registry.models().items())
    ]
    nothing = "no installed plugin ships a model; a run's folder is a model too"
    listing(as_json, rows, ("name", "package", "summary"), nothing)


@models.command("known")
def known(
    as_json: Annotated[
        bool,
        options.json(
            "A list of {name, summary, package, mask, verified, models: [{name, parameters, "
            "bytes}]}."
        ),
    ] = False,
) -> None:
    """List the families of released models that importers open, and the hub names they are for."""
    registry = Registry.load()
    rows = [
        {
            "name": name,
            "summary": importer.summary,
            "package": registry.package(name),
            "mask": importer.mask,
            "verified": importer.verified,
            "models": [
                {
                    "name": model.name,
                    "parameters": model.parameters,
                    "bytes": model.parameters * model.stored,
                }
                for model in importer.models
            ],
        }
        for name, importer in sorted(registry.importers().items())
    ]
    if rows or as_json:
        answer(as_json, rows, "\n\n".join(_family(row) for row in rows))
    else:
        say("no installed plugin opens released models")


def _family(row: dict[str, Any]) -> str:
    lines = [f"{row['name']}  {row['summary']}", f"  mask: {row['mask'] or 'none'}"]
    lines.append(f"  verified: {row['verified']}")
    cells = [
        (f"  {m['name']}", f"{m['parameters'] / 1e6:,.0f} M", f"{m['bytes'] / 1e9:,.1f} GB")
        for m in row["models"]
    ]
    return "\n".join(lines + ([columns(cells)] if cells else []))


@models.command("verify")
def verify(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A released model's folder with cases.safetensors and meta.json beside it.",
        ),
    ],
    device: Device = "cpu",
    as_json: Annotated[
        bool,
        options.json(
            "{family, tolerance, agrees, not_compared, differences: [{case, tensor, ...}]}."
        ),
    ] = False,
) -> None:
    """Open a released model, and compare it with what a reference implementation returned.

    The largest difference of every expected tensor of every case, and of decoding runs how many
    ids and choices are others and how far confidences are apart. Exit 0 if all are within the
    family's tolerance, 8 if one is beyond it, 5 or 6 for a folder that cannot be opened.
    """
    from dlmkit import devices
    from dlmkit.released.verify import verify as compared

    outcome = compared(folder, Registry.load(), devices.choose(device))
    if as_json:
        result_json(
            {
                "family": outcome.opened.name,
                "tolerance": outcome.tolerance,
                "agrees": outcome.agrees,
                "not_compared": outcome.missing,
                "differences": [asdict(difference) for difference in outcome.differences],
            }
        )
    else:
        cells = [(d.case, d.tensor, d.problem or f"{d.largest:.3g}") for d in outcome.differences]
        result(columns([("CASE", "TENSOR", "LARGEST DIFFERENCE"), *cells]))
        if outcome.missing:
            result(f"decoding runs: not compared: {', '.join(outcome.missing)}")
    if not outcome.agrees:
        raise GateFailed(
            f"{folder}: {outcome.opened.name} differs from its reference by more than "
            f"{outcome.tolerance:g}"
        )

"""``dlmkit export``: a model as a folder of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dlmkit.cli import options
from dlmkit.cli.output import written


def export(
    model: options.Trained,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new folder to write.")],
    weights: options.Held = None,
    name: options.Name = None,
    licence: options.Licence = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="Leave out the weights of the model that adapters were trained beside: whoever "
            "reads the folder gets them from this place.",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What dlmkit eval --out wrote of it, for the card."),
    ] = None,
    acceptance: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What dlmkit acceptance measure --out wrote of it, for the card."
        ),
    ] = None,
    overrides: options.Overrides = None,
    as_json: Annotated[bool, options.json("One JSON object.")] = False,
) -> None:
    """Write a model as a folder of the Hugging Face hub.

    It holds safetensors, config.json, the tokenizer, the recipe, a model card and a manifest with
    sha256 of every file but the card. dlmkit sample, dlmkit.load and transformers' AutoModel
    (after import dlmkit.hf) read it. --set gives it another way to be sampled.
    """
    from dlmkit.model.folder import Export
    from dlmkit_hub.evidence import Evidence

    exported = Export.of(model, weights, name, licence, overrides or (), base)
    if record or acceptance:
        measured = Evidence.of(exported.model, record, acceptance)
        exported = replace(exported, measured=measured)
    exported.write(folder)
    written(folder, as_json)

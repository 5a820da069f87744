"""``dlmkit import``: a released model as a folder of dlmkit's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dlmkit.cli import options
from dlmkit.cli.output import written
from dlmkit.documents import check_new_folder
from dlmkit.errors import UsageError
from dlmkit.registry.lookup import Registry


def import_model(
    model: Annotated[
        str,
        typer.Argument(metavar="REF", help="The folder of a released model, or its hub name."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new folder to write.")],
    pickled: Annotated[
        bool,
        typer.Option(
            "--pickled",
            help="Read tensors from .bin, .pt and .ckpt files too, by torch's weights-only loader.",
        ),
    ] = False,
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option(help="Convert the weights.  [default: as they are stored]"),
    ] = None,
    as_json: Annotated[bool, options.json("{folder, files}.")] = False,
) -> None:
    """Write a model that others released as a folder of dlmkit's own.

    It is opened strictly, as every command opens it, and written like dlmkit export writes: one
    file of safetensors, the tokenizer, the recipe, a card and a manifest.
    """
    from dlmkit.model import load_released, model_folder
    from dlmkit.model.folder import Export
    from dlmkit.released.opening import DTYPES, is_released

    check_new_folder(out)  # before anything is fetched
    registry = Registry.load()
    folder = model_folder(model, registry, pickled)
    if not is_released(folder):
        raise UsageError(f"{folder} is a model of dlmkit already, or none: use dlmkit export")
    wanted = None if dtype is None else DTYPES[dtype]
    opened = load_released(model, folder, registry, dtype=wanted, pickled=pickled)
    Export(opened, out.name).write(out)
    written(out, as_json)

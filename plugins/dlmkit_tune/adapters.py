"""``dlmkit tune adapters``: the adapters of a run alone, as `peft` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmkit import documents
from dlmkit.errors import UsageError
from dlmkit.shown import result


def adapters(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run's folder or a checkpoint.")],
    out: Annotated[Path, typer.Option("--out", help="The new folder to write.")],
) -> None:
    """Write the adapters of a model trained with network.with.lora, without the base's weights.

    The folder holds adapter_config.json and adapter_model.safetensors, which peft opens on the
    base model: PeftModel.from_pretrained(base, FOLDER). They adapt what the base reads; a table of
    tokens that was trained too, and the mask's row in it, is not among them: dlmkit export writes
    all of it, merged.
    """
    from dlmkit.model import load_model
    from dlmkit_hf.lora import save
    from dlmkit_hf.models import HfModel

    loaded = load_model(model)
    network = loaded.assembly.network
    if not isinstance(network, HfModel) or network.lora is None:
        raise UsageError(f"{model} has no adapters: it was trained without network.with.lora")
    base = loaded.config.network.options.get("name") or loaded.config.train.start_from or ""
    documents.check_new_folder(out)
    with documents.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        save(network.model, network.lora, base, out)
    result(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")

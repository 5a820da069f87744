"""Judges and encoders: transformers models from a folder or the hub, with what identifies them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlmkit import folders
from dlmkit.core.finite import refuse_non_finite
from dlmkit.errors import DataError
from dlmkit_metrics.configs import Pretrained
from dlmkit_text.vocabulary import with_words

_READ = (".json", ".safetensors", ".txt", ".model", ".jinja")
"""What of a folder decides the numbers: configuration, weights and tokenizer."""


@dataclass(frozen=True)
class Reader:
    """A model, its tokenizer, and what pins both: a content hash or the hub's commit."""

    model: Any
    tokenizer: Any
    identity: dict[str, Any]

    def vectors(self, texts: Sequence[str], length: int, batch_size: int) -> Tensor:
        """Mean of the last hidden states over a text's tokens, of norm 1: (texts, width)."""
        parts = []
        for first in range(0, len(texts), batch_size):
            batch = self.tokenizer(
                list(texts[first : first + batch_size]),
                padding=True,
                truncation=True,
                max_length=length,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.no_grad():
                hidden = self.model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None].to(hidden.dtype)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
            parts.append(torch.nn.functional.normalize(mean, dim=1).cpu())
        return torch.cat(parts)


def load(name: str, what: str, auto: str, config: Pretrained) -> Reader:
    """The model ``name``, built by the transformers class ``auto``; safetensors only.

    Raises DataError if it is no model here and cannot be had from the hub.
    """
    import transformers

    folder = folders.expanded(name)
    local = os.path.isdir(folder)
    source, revision = (str(folder), None) if local else (name, config.revision)
    try:
        tokenizer = with_words(
            transformers.AutoTokenizer.from_pretrained(
                source, revision=revision, trust_remote_code=False
            )
        )
        model = getattr(transformers, auto).from_pretrained(
            source,
            revision=revision,
            dtype=getattr(torch, config.dtype),
            use_safetensors=True,
            trust_remote_code=False,
        )
        model = model.to(config.device).eval()
    except Exception as error:  # the library raises a dozen kinds of error
        raise DataError(_cannot_load(name, what, local, error)) from error
    refuse_non_finite(model.state_dict().items(), f"{what} {name}")
    identity = {
        "name": folder.name if local else name,
        "sha256": digest(folder) if local else None,
        "revision": None if local else getattr(model.config, "_commit_hash", None),
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": config.dtype,
        "tokenizer": len(tokenizer),
    }
    return Reader(model, tokenizer, identity)


def digest(folder: Path) -> str:
    """The sha256 over the names and contents of a folder's model files."""
    total = hashlib.sha256()
    read = (file for file in folder.iterdir() if file.suffix in _READ and file.is_file())
    for path in sorted(read):
        total.update(path.name.encode())
        for block in _blocks(path):
            total.update(block)
    return total.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            yield block


def _cannot_load(name: str, what: str, local: bool, error: Exception) -> str:
    words = f"{type(error).__name__}: {error}".splitlines()[0]
    if local:
        return (
            f"the {what} {name} cannot be loaded: {words}; expected a folder that "
            f"save_pretrained wrote, with config.json, *.safetensors and a tokenizer"
        )
    if name.startswith(("/", ".", "~")):
        return f"there is no folder {name} to load the {what} from"
    return (
        f"the {what} {name!r} is no folder here, and the hub gave {words}; check the name, or "
        f"without a connection use a model that lies in {folders.hub()} (HF_HOME) or name a "
        f"folder that save_pretrained wrote elsewhere"
    )

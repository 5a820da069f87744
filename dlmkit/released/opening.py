"""A released model's folder, opened: recognised, converted, built without memory, and filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import models

from dlmkit.core.importer import Conversion, Family
from dlmkit.core.tokenizer import FILE, Tokenizer
from dlmkit.errors import CheckpointError, DataError
from dlmkit.folders import MANIFEST, RECIPE
from dlmkit.recipe.assemble import Assembly, assemble
from dlmkit.recipe.load import resolve_values
from dlmkit.registry.lookup import Registry
from dlmkit.released import family as families
from dlmkit.released.fill import fill
from dlmkit.released.stored import Folder, listed
from dlmkit.released.words import special_tokens, tokenizer_of

FILLED_IN: Mapping[str, Any] = {
    "masking": {"use": "cdcd:none"},
    "train": {"steps": 1000, "learning_rate": 1e-5},
}
"""What a conversion's recipe need not say. The rates are no advice: nothing was trained by them."""


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What weights can be converted to."""


@dataclass(frozen=True)
class Opened:
    """A released model: its family (``name`` is ``plugin:name``), what it was converted from and
    to, and the parts, filled. ``assembly.tokenizer`` stands in for one that the folder lacks."""

    folder: Path
    name: str
    family: Family
    conversion: Conversion
    assembly: Assembly
    has_tokenizer: bool


def open_released(
    folder: Path,
    registry: Registry,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    pickled: bool = False,
    overrides: Sequence[str] = (),
    name: str | None = None,
) -> Opened:
    """The released model in ``folder``, on ``device``, in its stored dtype or ``dtype``.

    ``pickled`` allows tensors in pickles, read by torch's weights-only loader. ``overrides`` are
    ``key.path=value`` of its recipe, and ``name`` is what the recipe calls the folder, for its
    tokenizer. Raises DataError for a config that no family knows, and
    CheckpointError for a folder that is not exactly what its family says.
    """
    known, family, conversion, saved = converted(folder, registry)
    stored = listed(folder, conversion, family.unpickled if pickled else None)
    tokenizer = saved or _numbers(conversion.size)
    _check_vocabulary(folder, tokenizer, conversion)
    data = {"paths": [], "tokenizer": {"kind": "pretrained", "name": name or str(folder)}}
    values = {"data": {"use": "text:text", "with": data}, **FILLED_IN, **conversion.recipe}
    recipe = resolve_values(values, f"the recipe of {known}", overrides, registry).config
    where = torch.device(device)
    assembly = assemble(
        recipe,
        registry,
        device=where,
        dtype=dtype or _dtype(stored, conversion),
        folder=folder,
        with_data=False,
        tokenizer=tokenizer,
        fill=lambda module: fill(module, conversion, stored, where, dtype),
    )
    return Opened(folder, known, family, conversion, assembly, saved is not None)


def converted(folder: Path, registry: Registry) -> tuple[str, Family, Conversion, Tokenizer | None]:
    """The family of ``folder`` as ``plugin:name`` and at work, what it makes of the folder's
    config, and the folder's tokenizer. Reads no weights. Raises as :func:`open_released`."""
    config = families.config_of(folder)
    known, importer = families.find(folder, config, registry)
    family = families.build(known, importer)
    tokenizer = tokenizer_of(folder)
    try:
        conversion = family.convert(config, special_tokens(tokenizer))
    except ValueError as error:
        raise CheckpointError(f"{folder}: {known} cannot open this model: {error}") from error
    return known, family, conversion, tokenizer


def is_released(folder: Path) -> bool:
    """Whether ``folder`` can be a model that others released, and is none that dlmkit wrote."""
    ours = any((folder / name).exists() for name in (MANIFEST, RECIPE, "checkpoints"))
    return not ours and (folder / families.CONFIG).is_file()


def needs_tokenizer(opened: Opened) -> Opened:
    """``opened`` itself. Raises DataError if no text can be read or written: its folder has no
    tokenizer."""
    if opened.has_tokenizer:
        return opened
    raise DataError(
        f"{opened.folder} holds no {FILE}: put the tokenizer's files of the same model there "
        "('dlmkit models verify' needs none)"
    )


def _check_vocabulary(folder: Path, tokenizer: Tokenizer, conversion: Conversion) -> None:
    if tokenizer.vocab_size > conversion.size:
        raise CheckpointError(
            f"{folder}: the tokenizer's largest id is {tokenizer.vocab_size - 1}, and the model's "
            f"table of tokens has {conversion.size} rows: they are not of one model"
        )
    mask = conversion.mask
    if mask is not None and not 0 <= mask < conversion.size:
        raise CheckpointError(
            f"{folder}: the mask's id is {mask}, and the table of tokens has {conversion.size} rows"
        )


def _dtype(stored: Folder, conversion: Conversion) -> torch.dtype:
    """The dtype of most of the weights."""
    counts: dict[torch.dtype, int] = {}
    for name in conversion.tensors:
        if name in stored.tensors and stored.tensors[name].dtype.is_floating_point:
            tensor = stored.tensors[name]
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.shape.numel()
    return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)


def _numbers(size: int) -> Tokenizer:
    """Ids as words, for a folder without a tokenizer: it can be compared, not sampled."""
    words = {f"<{i}>": i for i in range(size)}
    backend = tokenizers.Tokenizer(models.WordLevel(words, unk_token="<0>"))
    return Tokenizer(backend, pad="<0>", unknown=None)

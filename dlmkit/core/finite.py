"""Weights that are numbers: one that is none makes every text of a model empty or nonsense."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from dlmkit.errors import CheckpointError

_BLOCK = 1 << 22


def refuse_non_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Raise CheckpointError, naming the tensor, if one of ``where`` holds a NaN or an infinity."""
    for name, tensor in tensors:
        # in blocks, for the look takes several times what it looks at
        blocks = tensor.detach().reshape(-1).split(_BLOCK) if tensor.is_floating_point() else ()
        if not all(bool(torch.isfinite(block).all()) for block in blocks):
            bad = sum(int((~torch.isfinite(block)).sum()) for block in blocks)
            raise CheckpointError(
                f"{where}: the tensor {name} holds {bad} of {tensor.numel()} values that are not "
                "finite (NaN or infinity): no text can come of these weights; use an earlier "
                "checkpoint, or ask who made them"
            )

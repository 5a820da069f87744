"""Weights that are numbers: one that is none makes every text of a model empty or nonsense."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from dlmkit.errors import CheckpointError


def refuse_non_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Raise CheckpointError, naming the tensor, if one of ``where`` holds a NaN or an infinity."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(
                f"{where}: the tensor {name} holds {bad} of {tensor.numel()} values that are not "
                "finite (NaN or infinity): no text can come of these weights; use an earlier "
                "checkpoint, or ask who made them"
            )

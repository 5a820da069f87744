"""Where the blocks of a model of transformers are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def blocks_of(model: nn.Module, count: int) -> Sequence[nn.Module]:
    """The ``count`` blocks of ``model``, or the whole of one that shares or hides them."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    blocks = next((units for units in lists if len(units) == count), None)
    return [model] if blocks is None else list(blocks)

"""The floating-point operations of one evaluation, counted by the shapes of its matmuls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.kernels.attention import Attention, reference
from dlmkit.sampling.parts import SamplingParts
from dlmkit.types import Embedded


def evaluation_flops(parts: SamplingParts, network: nn.Module, length: int) -> int:
    """FLOPs of one evaluation of one text of ``length`` tokens: network and vocabulary step.

    A multiply and an add are two. Only matrix products count (linear layers, attention, the
    read-out over the vocabulary), by their shapes. Attention is counted in its plain form, as
    fused backends are invisible to torch's counter.
    """
    device = parts.device
    ids = torch.zeros(1, length, dtype=torch.int64, device=device)
    x = parts.space.embed(ids)
    level = Level(*torch.ones(2, 1, device=device, dtype=level_dtype(x)).unbind())
    conditioning = unconditional(parts.space.corruption.input(x, level))
    mapping: dict[Any, Callable[..., int]] = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _flash,
        torch.ops.aten.addmm_: _addmm,
    }
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    inputs = x, level, parts.denoise.start(x), conditioning
    with torch.no_grad(), plain_attention(network):
        parts.denoise(*inputs)  # kernels are probed at their first use, which must not count
        with counter:
            parts.denoise(*inputs)
    return int(counter.get_total_flops())


def level_dtype(x: Tensor) -> torch.dtype:
    """The dtype of levels beside ``x``, which may hold token ids."""
    return torch.promote_types(x.dtype, torch.float32)


def unconditional(read: Embedded) -> Conditioning:
    """Nothing is given and nothing is padding, in rows of which the network gets ``read``."""
    everywhere = torch.ones(read.shape[:2], dtype=torch.bool, device=read.device)
    return Conditioning(~everywhere, torch.zeros_like(read), everywhere)


def _flash(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    rows, heads, length, channels = query
    return 2 * rows * heads * length * key[-2] * (channels + value[-1])


def _addmm(into: Sequence[int], a: Sequence[int], b: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


@contextmanager
def plain_attention(network: nn.Module) -> Iterator[None]:
    """Every attention backend of ``network`` replaced by plain softmax attention."""
    backends = [module for module in network.modules() if isinstance(module, Attention)]
    for backend in backends:
        backend.forward = reference  # type: ignore[method-assign]
    try:
        yield
    finally:
        for backend in backends:
            del backend.forward

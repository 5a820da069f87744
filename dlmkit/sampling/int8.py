"""Linear layers in int8 on the CPU, with scales that keep texts independent of each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlmkit.errors import PluginError, describe

LEVELS = 127.0
"""Integers on either side of zero: symmetric, so that no offset has to be carried."""


class Int8Linear(nn.Module):
    """``linear`` in int8: a scale per output channel for the weights, per token for the input.

    A scale taken over the batch would make one text depend on its neighbours. Sums are exact in
    int32. Rounding moves an output by about 1 % of its standard deviation.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = _scale(weight)
        self.register_buffer("weight", (weight / scale).round().to(torch.int8).T)
        self.register_buffer("scale", scale.T)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        scale = _scale(tokens)
        integers = (tokens / scale).round_().to(torch.int8)
        out = torch._int_mm(integers, self.weight).to(x.dtype).mul_(scale).mul_(self.scale)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], -1)


def _scale(rows: Tensor) -> Tensor:
    """What one integer step is worth in each row, (M, 1); of a row of zeros, anything."""
    return rows.abs().amax(dim=1, keepdim=True).div_(LEVELS).clamp_(min=1e-30)


def probe_int8() -> None:
    """Multiply once with the largest integers, which a kernel without VNNI might saturate.

    Raises PluginError if it does not work on this CPU or is not exact.
    """
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-127, 128, (33, 256), generator=generator, dtype=torch.int8)
    b = torch.randint(-127, 128, (256, 48), generator=generator, dtype=torch.int8)
    a[0], b[:, 0] = 127, 127
    try:
        product = torch._int_mm(a, b.T.contiguous().T)
    except Exception as error:
        raise PluginError(f"sample.int8: it does not work here: {describe(error)}") from error
    if not torch.equal(product.long(), a.long() @ b.long()):
        raise PluginError(
            "sample.int8: this CPU's int8 product is not exact; leave sample.int8 out of the recipe"
        )

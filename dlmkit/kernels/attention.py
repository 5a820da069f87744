"""Attention backends: probed by calling them, refused with reasons, and named in every result."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dlmkit.errors import PluginError
from dlmkit.types import Mask

Heads = Float[Tensor, "B H L C"]

PARITY = {torch.float64: 1e-10, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest difference from a plain softmax that a probe accepts, on unit-variance inputs."""


class Attention(nn.Module, ABC):
    """softmax(q k^T / sqrt(C)) v over the positions that may be attended to. No parameters.

    ``name`` is the backend's name in a recipe and ``kernel`` what runs underneath it. A module,
    so that the backends a network really uses are found among its ``modules()``.
    """

    name: str
    kernel: str

    @abstractmethod
    def forward(self, q: Heads, k: Heads, v: Heads, attend: Mask | None) -> Heads:
        """``attend`` is False at padding, which no position attends to; None: no padding."""


class Sdpa(Attention):
    """torch's own scaled dot product attention, which picks a kernel for the device."""

    name = "sdpa"

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.kernel = f"torch {torch.__version__} {device.type}"

    def forward(self, q: Heads, k: Heads, v: Heads, attend: Mask | None) -> Heads:
        mask = None if attend is None else attend[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, mask)


class Flex(Attention):
    """torch's flex attention: compiled on an accelerator, unfused (and slow) on the CPU."""

    name = "flex"

    def __init__(self, device: torch.device) -> None:
        from torch.nn.attention import flex_attention as flex  # costs an import of dynamo

        super().__init__()
        self.call: Callable[..., Tensor] = flex.flex_attention
        self.kernel = "unfused"
        if device.type != "cpu":
            self.call, self.kernel = torch.compile(flex.flex_attention), "compiled"

    def forward(self, q: Heads, k: Heads, v: Heads, attend: Mask | None) -> Heads:
        def score(value: Tensor, row: Tensor, _: Tensor, __: Tensor, key: Tensor) -> Tensor:
            return torch.where(attend[row, key], value, -torch.inf) if attend is not None else value

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*flex_attention called without")
            return self.call(q, k, v, score_mod=None if attend is None else score)


class Xformers(Attention):
    """xformers' memory-efficient attention; needs the extra `xformers` and a supported GPU."""

    name = "xformers"

    def __init__(self, device: torch.device) -> None:
        try:
            from xformers import __version__, ops
        except ImportError as error:
            raise PluginError(f"{error}; pip install 'dlmkit[xformers]'") from error
        super().__init__()
        self.call: Callable[..., Tensor] = ops.memory_efficient_attention
        self.kernel = f"xformers {__version__}"

    def forward(self, q: Heads, k: Heads, v: Heads, attend: Mask | None) -> Heads:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        bias = None if attend is None else self._bias(q, attend)
        return self.call(q, k, v, attn_bias=bias).transpose(1, 2)

    @staticmethod
    def _bias(q: Tensor, attend: Mask) -> Tensor:
        rows, length, heads, _ = q.shape
        keys = attend.shape[1]
        padded = (keys + 7) // 8 * 8  # its kernels want rows of the bias aligned
        bias = q.new_zeros(rows, heads, length, padded)[..., :keys]
        return bias.masked_fill_(~attend[:, None, None, :], -torch.inf)


BACKENDS: Mapping[str, Callable[[torch.device], Attention]] = {
    "sdpa": Sdpa,
    "xformers": Xformers,
    "flex": Flex,
}


def reference(q: Heads, k: Heads, v: Heads, attend: Mask | None) -> Heads:
    """Plain softmax attention, what every backend must agree with."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if attend is not None:
        scores = scores.masked_fill(~attend[:, None, None, :], -torch.inf)
    mixed: Tensor = scores.softmax(dim=-1) @ v
    return mixed


def probe(attention: Attention, device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    """Call ``attention`` forwards and backwards, with and without padding.

    Raises whatever it raises, or RuntimeError if it disagrees with :func:`reference`.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2, 2, 16, head_dim)
    inputs = torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()
    q, k, v = inputs.unbind()
    attend = torch.arange(16, device=device) < torch.tensor([[16], [5]], device=device)
    for mask in (None, attend):
        mixed = attention(q, k, v, mask)
        (gradient,) = torch.autograd.grad(mixed.square().sum(), inputs)
        expected = reference(q, k, v, mask)
        worst = (mixed - expected).abs().max().item()
        if not (worst <= PARITY[dtype] and gradient.isfinite().all()):
            raise RuntimeError(f"it differs from plain softmax attention by {worst:.3g}")


def resolve_attention(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int
) -> Attention:
    """The backend ``name`` (auto: sdpa), shown to work on this device, dtype and head dimension.

    Raises PluginError with the backend's own reasons if it does not work here.
    """
    chosen = "sdpa" if name == "auto" else name
    if chosen not in BACKENDS:
        raise PluginError(f"attention: {name!r} is not one of auto, {', '.join(BACKENDS)}")
    try:
        attention = BACKENDS[chosen](device)
        with torch.enable_grad():
            probe(attention, device, dtype, head_dim)
    except Exception as error:
        raise PluginError(
            f"attention: {chosen} does not work on {device} in {str(dtype)[6:]} with heads of "
            f"{head_dim} channels: {error}\nset attention: auto, or leave it out of the recipe"
        ) from error
    return attention

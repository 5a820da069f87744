"""Layers that score networks share: what is read of a row, of its level and of positions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.types import Embedded, Mask


class TimeFeatures(nn.Module):
    """Random Fourier features of log(sigma / alpha) into an MLP of two layers."""

    frequencies: Tensor

    def __init__(self, width: int, bandwidth: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(width // 2) * bandwidth)
        self.mlp = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, level: Level) -> Tensor:
        """(B, 1, width)."""
        ratio = torch.log(level.ratio).to(self.frequencies.dtype)
        angles = (2.0 * math.pi) * ratio[:, None] * self.frequencies
        features: Tensor = self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1))
        return features[:, None]


def rotation_table(length: int, channels: int, base: float) -> Tensor:
    """Cosines and signed sines of rotary embedding (RoFormer, 2104.09864), (2, L, 1, channels).

    The second half of the channels is the partner of the first.
    """
    dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)  # angles reach L
    return rotation_at(length, base ** (-torch.arange(0, channels, 2, dtype=dtype) / channels))


def rotation_at(length: int, rates: Tensor) -> Tensor:
    """:func:`rotation_table` of the ``rates`` (channels / 2), in radians a position."""
    angles = torch.arange(length)[:, None, None] * rates
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)))


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the two halves of the channels of ``x`` (B, L, H, channels) by position; of a table
    that is gathered at positions of each row, (2, B, L, 1, channels), by these."""
    cos, sin = (rotation if rotation.ndim == 5 else rotation[:, : x.shape[1]]).to(x.dtype)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def streams(x: Embedded, conditioning: Conditioning, previous: Tensor) -> Tensor:
    """Noisy x, clean embeddings, the mask and the previous prediction by position (B, L, 3D + 1).

    At given positions the noisy and the previous stream are zero; elsewhere the clean stream is.
    The mask stream is 1 at noised and 0 at given positions.
    """
    noised = ~conditioning.given[..., None]
    parts = (
        torch.where(noised, x, 0.0),
        conditioning.clean,
        noised.to(x.dtype),
        torch.where(noised, previous, 0.0),
    )
    return torch.cat(parts, dim=-1)


def extended(seen: Mask, positions: Tensor, block: int | None) -> Bool[Tensor, "B 1 #M L"]:
    """What queries at ``positions`` (B, M) see of all keys: all, or with blocks their own block
    and those before it."""
    if not block:
        return seen[:, None, None]
    number = torch.arange(seen.shape[1], device=seen.device) // block
    return ((positions // block)[..., None] >= number)[:, None] & seen[:, None, None]


Keep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes the keys and values of some positions, and gives those of all that are known."""


def keeper(memory: Tensor, layer: int, positions: Tensor) -> Keep:
    """Writes a layer's keys and values (B, M, H, C) at ``positions`` into ``memory``, in place."""
    row = torch.arange(len(positions), device=positions.device)[:, None]

    def keep(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        memory[row, layer, 0, positions] = k.to(memory.dtype)  # under autocast it is narrower
        memory[row, layer, 1, positions] = v.to(memory.dtype)
        return memory[:, layer, 0], memory[:, layer, 1]

    return keep

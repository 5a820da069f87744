"""Attention whose mask may differ by position, for networks that attend block by block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dlmkit.core.layers import extended
from dlmkit.core.network import Conditioning
from dlmkit.types import Embedded, Ids, Mask

Seen = Mask | Bool[Tensor, "#B 1 L L"]
"""Which positions may be seen: the keys, by every position, or of each position its own."""


def rotary_rates(channels: int, base: float) -> Tensor:
    """Radians a position of every pair of ``channels``, (channels / 2), rounded as in the authors'
    code: a last bit of a rate is hundreds of those of a late position's cosine."""
    exponents = torch.arange(0, channels, 2, dtype=torch.float32) / channels
    return 1.0 / base**exponents


def block_causal(
    seen: Seen | None, length: int, block: int | None, device: torch.device
) -> Tensor | None:
    """What broadcasts against scores (B, H, L, L). Keys, all without ``seen``, are seen from their
    own block and from later ones, if there are blocks; a mask of each position is the mask."""
    if seen is not None and seen.ndim == 4:
        return seen
    keys = None if seen is None else seen[:, None, None, :]
    if block is None:
        return keys
    number = torch.arange(length, device=device) // block
    causal = number[:, None] >= number
    return causal if keys is None else keys & causal


def extension(
    x: Embedded,
    conditioning: Conditioning,
    positions: Ids,
    memory: Tensor,
    rotation: Tensor,
    block: int | None,
) -> tuple[Embedded, Tensor, Tensor, Tensor]:
    """What a network extends a row's keys and values by: what it reads at ``positions`` (B, M), a
    copy of ``memory`` to write to, the ``rotation`` there, and what is seen from there."""
    seen = extended(conditioning.attend, positions, block)
    read = conditioning.at(positions).shown(x)
    return read, memory.clone(), rotation[:, positions], seen


def attended(
    q: Float[Tensor, "B M H C"],
    k: Float[Tensor, "B L G C"],
    v: Float[Tensor, "B L G C"],
    seen: Tensor | None,
) -> Float[Tensor, "B M D"]:
    """Scaled dot-product attention of heads (B, L, H, C), put together again. Fewer heads of ``k``
    and ``v`` are each read by as many of ``q``."""
    grouped = q.shape[2] != k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, seen, enable_gqa=grouped)
    return mixed.transpose(1, 2).flatten(2)

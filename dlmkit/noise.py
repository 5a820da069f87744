"""Randomness as an argument: counter-based noise keyed by (seed, row, step, draw).

A row's numbers depend on its own key alone, so they are the same whatever the batch size, the
neighbours or the number of processes. The generator is SplitMix64 (Steele, Lea and Flood 2014)
on a counter; keys are folded in by its finaliser. All arithmetic is 64-bit and then rounded to
the dtype asked for, so runs in two precisions see the same noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_WORD = (1 << 64) - 1
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    # int64 >> keeps the sign; the mask makes it the logical shift that the generator needs
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _mix_number(x: int) -> int:
    """:func:`_mix` of one number, which as a tensor would cost a dozen kernels."""
    x &= _WORD
    x = (x ^ (x >> 30)) * _MIX_1 & _WORD
    x = (x ^ (x >> 27)) * _MIX_2 & _WORD
    return _signed(x ^ (x >> 31))


def _fold(key: Tensor, value: Tensor | int) -> Tensor:
    value = value + _GOLDEN
    mixed = _mix_number(value) if isinstance(value, int) else _mix(value)
    return _mix((key ^ mixed) + _GOLDEN)


@dataclass(frozen=True)
class Noise:
    """One stream of random numbers a row. ``key`` is row-first, int64[B]."""

    key: Int[Tensor, "B"]

    @staticmethod
    def keyed(seed: int, rows: Int[Tensor, "B"], step: Int[Tensor, "B"] | int) -> Noise:
        """The streams of (seed, row, step); ``step`` is one for all rows or one for each."""
        return Noise(_fold(_fold(_fold(torch.zeros_like(rows), seed), rows), step))

    def fork(self, domain: int) -> Noise:
        """Streams of the same rows that share no number with these: one domain a consumer."""
        return Noise(_fold(self.key, -1 - domain))

    def _bits(self, draw: int, shape: tuple[int, ...]) -> Tensor:
        count = math.prod(shape)
        counter = torch.arange(1, count + 1, device=self.key.device)
        bits = _mix(_fold(self.key, draw)[:, None] + counter * _GOLDEN)
        return bits.view(-1, *shape)

    def uniform(
        self, draw: int, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B ..."]:
        """Uniform numbers in [0, 1), shape (B, \\*shape). Another ``draw``, other numbers."""
        # as many bits as fill the mantissa: more would round up to 1.0
        bits = round(1.0 - math.log2(torch.finfo(dtype).eps))
        return _shift(self._bits(draw, shape), 64 - bits).to(dtype) * 2.0**-bits

    def normal(
        self, draw: int, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B ..."]:
        """Standard normal numbers (Box-Muller), shape (B, \\*shape)."""
        count = math.prod(shape)
        bits = self._bits(draw, ((count + 1) // 2,))
        radius = torch.sqrt(-2.0 * torch.log((_shift(bits, 32) + 1).double() * 2.0**-32))
        angle = (bits & 0xFFFFFFFF).double() * (2.0 * math.pi * 2.0**-32)
        pair = torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1)
        return pair[:, :count].to(dtype).view(-1, *shape)

"""Randomness as an argument: counter-based noise keyed by (seed, row, step, draw).

A row's numbers depend on its own key alone, so they are the same whatever the batch size, the
neighbours or the number of processes. The generator is SplitMix64 (Steele, Lea and Flood 2014)
on a counter; keys are folded in by its finaliser. All arithmetic is 64-bit and then rounded to
the dtype asked for, so runs in two precisions see the same noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

At = tuple[Int[Tensor, "N"], Int[Tensor, "N"]]
"""Rows, and a place of each."""


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_WORD = (1 << 64) - 1
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shifted(x: Tensor, bits: int) -> Tensor:
    # int64 >> keeps the sign; the mask makes it the logical shift that the generator needs
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix_(x: Tensor) -> Tensor:
    """The finaliser, in place: on the CPU a draw is bound by memory."""
    x.bitwise_xor_(_shifted(x, 30)).mul_(_MIX_1)
    x.bitwise_xor_(_shifted(x, 27)).mul_(_MIX_2)
    return x.bitwise_xor_(_shifted(x, 31))


def _mix_number(x: int) -> int:
    """:func:`_mix_` of one number, which as a tensor would cost a dozen kernels."""
    x &= _WORD
    x = (x ^ (x >> 30)) * _MIX_1 & _WORD
    x = (x ^ (x >> 27)) * _MIX_2 & _WORD
    return _signed(x ^ (x >> 31))


def _fold(key: Tensor | int, value: Tensor | int) -> Tensor:
    """``value`` folded into ``key``; they broadcast, and one of them may be a plain number."""
    mixed = _mix_number(value + _GOLDEN) if isinstance(value, int) else _mix_(value + _GOLDEN)
    both: Tensor = mixed ^ key  # type: ignore[assignment]
    return _mix_(both.add_(_GOLDEN))


@dataclass(frozen=True)
class Noise:
    """One stream of random numbers per row. ``key`` is row-first, int64[B].

    Or N streams a row, int64[B, N], of which ``step`` picks one: see :meth:`at`. Numbers are made
    on ``device``, by default where the keys are: see :meth:`on`.
    """

    key: Int[Tensor, "B *N"]
    step: Int[Tensor, "B"] | None = None
    device: torch.device | None = None

    @staticmethod
    def keyed(seed: int, rows: Int[Tensor, "B"], step: Int[Tensor, "B"] | int) -> Noise:
        """The streams of (seed, row, step); ``step`` is one for all rows or one for each."""
        return Noise(_fold(_row_keys(seed, rows), step))

    @staticmethod
    def steps(seed: int, rows: Int[Tensor, "B"], count: int) -> Noise:
        """The streams of (seed, row, step) for all steps below ``count``: B times N keys."""
        return Noise(_fold(_row_keys(seed, rows)[:, None], torch.arange(count, device=rows.device)))

    def at(self, step: Int[Tensor, "B"]) -> Noise:
        """The streams of each row's own ``step``, out of those of all steps.

        What is folded in from here on is folded into all steps at once, remembered and picked
        from: a loop over the steps pays for it once and not at every one.
        """
        picked = Noise(self.key, step, self.device)
        picked.__dict__["_folds"] = self._folds
        return picked

    def on(self, device: torch.device) -> Noise:
        """The same streams, whose numbers are made on ``device`` while keys stay where they are.

        To fold keys takes a dozen small operations each time, which the host does sooner than it
        launches them. What is one number per row is drawn on the host as well.
        """
        return Noise(self.key, self.step, device)

    def fork(self, domain: int) -> Noise:
        """Streams of the same rows that share no number with these: one domain a consumer."""
        return self._folded(-1 - domain)

    @cached_property
    def _folds(self) -> dict[int, Noise]:
        return {}

    def _folded(self, value: int) -> Noise:
        if value not in self._folds:
            self._folds[value] = Noise(_fold(self.key, value), None, self.device)
        folded = self._folds[value]
        return folded if self.step is None else folded.at(self.step)

    def _bits(
        self, draw: int, count: int, device: torch.device, at: At | None = None
    ) -> Int[Tensor, "B K"]:
        """``count`` words of every row; ``at``, (rows, words): of these, each from a word on."""
        folded = self._folded(draw)
        key = folded.key[:, None] if self.step is None else folded.key.gather(1, self.step[:, None])
        key = key.to(device, non_blocking=True)
        if at is not None:
            rows, word = at
            key = key[rows] + word[:, None] * _GOLDEN
        counter = torch.arange(1, count + 1, device=key.device)
        return _mix_(torch.add(key, counter, alpha=_GOLDEN))

    def uniform(
        self,
        draw: int,
        shape: tuple[int, ...] = (),
        dtype: torch.dtype = torch.float32,
        at: At | None = None,
    ) -> Float[Tensor, "B ..."]:
        """Uniform numbers in [0, 1), shape (B, \\*shape). Another ``draw``, other numbers.

        ``at``, (rows, places), makes some of them alone: those of each row at its place along the
        first axis of ``shape``, (N, \\*shape[1:]), the same numbers as among all.
        """
        # as many bits as fill the mantissa: more would round up to 1.0
        bits = round(1.0 - math.log2(torch.finfo(dtype).eps))
        if at is not None:
            shape = shape[1:]
            at = at[0], at[1] * math.prod(shape)
        count, place = math.prod(shape), self.device or self.key.device
        where = self.key.device if count == 1 and at is None else place
        drawn = _shifted(self._bits(draw, count, where, at), 64 - bits).to(dtype).mul_(2.0**-bits)
        return drawn.to(place, non_blocking=True).view(-1, *shape)

    def normal(
        self, draw: int, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B ..."]:
        """Standard normal numbers (Box-Muller), shape (B, \\*shape)."""
        count = math.prod(shape)
        bits = self._bits(draw, (count + 1) // 2, self.device or self.key.device)
        # each word's two halves, the low one first in memory: the angle's bits, then the radius's
        halves = bits.view(torch.uint32).unflatten(1, (-1, 2)).permute(2, 0, 1)
        halves = halves.to(torch.float64, memory_format=torch.contiguous_format)
        angle, radius = halves
        angle.mul_(2.0 * math.pi * 2.0**-32)
        radius.add_(1.0).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
        pair = torch.empty_like(halves)
        torch.cos(angle, out=pair[0])
        torch.sin(angle, out=pair[1])
        drawn = pair.mul_(radius).transpose(0, 1).to(dtype, memory_format=torch.contiguous_format)
        return drawn.flatten(1)[:, :count].view(-1, *shape)


def _row_keys(seed: int, rows: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
    start = _mix_number(_mix_number(seed + _GOLDEN) + _GOLDEN)  # the seed folded into a key of 0
    return _fold(start, rows)

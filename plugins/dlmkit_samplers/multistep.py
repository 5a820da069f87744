"""Multistep samplers: higher order from predictions that were already made.

In lambda = -ln s, with h = ln(s / s'), the VE process has the exact solution
x' = e^-h x + int_0^1 h e^(-h (1 - u)) x0(u) du, u running from 0 at s to 1 at s'. These solvers
put a polynomial through the last predictions in place of x0(u). Each row remembers its own; a
row's first step and the step that ends clean are first order, chosen by ``where``.

Where the log steps grow fast, a polynomial through old, close points is extrapolated far. A row
takes a lower order for a step whose h is more than ``max_growth`` times the one before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.types import Index, PerRow, Rows
from dlmkit_samplers import configs
from dlmkit_samplers.samplers import GaussianSampler, ratio

_TINY = 1e-6
"""The least log step: of levels that are one number in single precision."""


class History(NamedTuple):
    """The steps a row has taken, up to two of them: how many, then x0 and h, the last one first."""

    taken: Index
    x0: tuple[Tensor, Tensor]
    h: tuple[PerRow, PerRow]

    @staticmethod
    def empty(x: Tensor) -> History:
        taken = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        h = torch.ones_like(taken, dtype=torch.float64)
        return History(taken, (torch.zeros_like(x), torch.zeros_like(x)), (h, h))

    def then(self, x0: Tensor, h: PerRow) -> History:
        """The history after a step of ``h`` along ``x0``."""
        return History((self.taken + 1).clamp(max=2), (x0, self.x0[0]), (h, self.h[0]))


def log_step(here: Level, next: Level) -> tuple[PerRow, Rows]:
    """(h in float64, whether the step ends clean); h is tiny, not infinite, where it does."""
    s, s_next = ((level.sigma / level.alpha).double() for level in (here, next))
    last = s_next == 0
    return torch.log(s / torch.where(last, s, s_next)).clamp(min=_TINY), last


def like(value: PerRow, x: Tensor) -> Tensor:
    """``value`` in the dtype of ``x``, broadcast against it."""
    return value.to(x.dtype).view(-1, *(1,) * (x.ndim - 1))


def integrate(x: Tensor, h: PerRow, x0: Tensor, slope: Tensor, curve: Tensor) -> Tensor:
    """The exact x' for x0(u) = x0 + slope u + curve u^2."""
    first = -torch.expm1(-h)
    second = 1.0 - first / h
    third = 1.0 - 2.0 * second / h
    kept = like(torch.exp(-h), x) * x + like(first, x) * x0
    return kept + like(second, x) * slope + like(third, x) * curve


def gentle(h: PerRow, before: PerRow, limit: float) -> Rows:
    """Whether ``h`` is at most ``limit`` times the log step before."""
    return h <= limit * before


def midpoint(x0: Tensor, h: PerRow, history: History, limit: float) -> Tensor:
    """D = x0 + (h / 2 h_before)(x0 - x0_before), DPM-Solver++(2M)'s; x0 at first order."""
    second = (history.taken > 0) & gentle(h, history.h[0], limit)
    weight = torch.where(second, h / (2.0 * history.h[0]), 0.0)
    return x0 + like(weight, x0) * (x0 - history.x0[0])


class MultistepSampler(GaussianSampler):
    """What the solvers here share: their limit, and a history as the state."""

    def __init__(self, config: configs.Multistep, context: BuildContext) -> None:
        self.limit = config.max_growth

    def init(self, x: Tensor) -> Any:
        return History.empty(x)


class DPM2M(MultistepSampler):
    """DPM-Solver++(2M) (2211.01095, algorithm 2): x' = r x + (1 - r) D, r = s' / s."""

    name = "dpm-2m"

    def move(
        self, x: Tensor, x0: Tensor, here: Level, next: Level, state: History, noise: Noise
    ) -> tuple[Tensor, History]:
        h, last = log_step(here, next)
        d = midpoint(x0, h, state, self.limit)
        moved = d + like(torch.exp(-h), x) * (x - d)
        return rows.where(last, x0, moved), state.then(x0, h)


class DPM3M(MultistepSampler):
    """DPM-Solver++(3M): the parabola through three predictions (2211.01095, section 4.2 and B).

    With divided differences d0 = (x0 - x0_1) h / h_1, d1 = (x0_1 - x0_2) h / h_2 and
    curve = (d0 - d1) h / (h_1 + h_2), x0(u) = x0 + (d0 + curve h_1 / h) u + curve u^2, integrated
    exactly. The authors' code halves the weight of the curve; by halving the steps on the test-bed
    this form is of order 3.1 once started, and that one of 2.4.
    """

    name = "dpm-3m"

    def move(
        self, x: Tensor, x0: Tensor, here: Level, next: Level, state: History, noise: Noise
    ) -> tuple[Tensor, History]:
        h, last = log_step(here, next)
        (x1, x2), (h1, h2) = state.x0, state.h
        second = (state.taken > 0) & gentle(h, h1, self.limit)
        third = second & (state.taken > 1) & gentle(h1, h2, self.limit)
        d0, d1 = like(h / h1, x) * (x0 - x1), like(h / h2, x) * (x1 - x2)
        curve = rows.where(third, like(h / (h1 + h2), x) * (d0 - d1), torch.zeros_like(x0))
        slope = rows.where(second, d0 + like(h1 / h, x) * curve, torch.zeros_like(x0))
        return rows.where(last, x0, integrate(x, h, x0, slope, curve)), state.then(x0, h)


class UniPCState(NamedTuple):
    """The corrected x / alpha that the last step started from, and the history before this step."""

    x: Tensor
    history: History


class UniPC(MultistepSampler):
    """UniPC-2 with data prediction (2302.04867, algorithms 5 and 7, B(h) = e^h - 1).

    The prediction made at a point first corrects x there (UniC-2: the parabola through it and the
    two predictions before, so third order), then predicts the next x (UniP-2, which is
    DPM-Solver++(2M)). No evaluation is added: the prediction is that of the uncorrected x.
    """

    name = "unipc"

    def init(self, x: Tensor) -> UniPCState:
        return UniPCState(torch.zeros_like(x), History.empty(x))

    def move(
        self, x: Tensor, x0: Tensor, here: Level, next: Level, state: UniPCState, noise: Noise
    ) -> tuple[Tensor, UniPCState]:
        h, last = log_step(here, next)
        history = state.history
        x = rows.where(history.taken > 0, self.corrected(state, x0), x)
        d = midpoint(x0, h, history, self.limit)
        moved = d + like(torch.exp(-h), x) * (x - d)
        return rows.where(last, x0, moved), UniPCState(x, history.then(x0, h))

    def corrected(self, state: UniPCState, ahead: Tensor) -> Tensor:
        """The last step again, now that the prediction ``ahead`` at its end is known."""
        taken, (x0, before), (h, h_before) = state.history
        parabola = (taken > 1) & gentle(h, h_before, self.limit)
        rise = ahead - x0
        back = like(h / h_before, x0) * (x0 - before)
        share = like(h / (h + h_before), x0)
        curve = rows.where(parabola, share * (rise - back), torch.zeros_like(x0))
        return integrate(state.x, h, x0, rise - curve, curve)


class DPM2MSDE(MultistepSampler):
    """SDE-DPM-Solver++(2M) (2211.01095, section 4.3 and appendix B), scaled by eta as k-diffusion.

    x' = r e^(-eta h) x + (1 - e^(-(1 + eta) h)) D + s' sqrt(1 - e^(-2 eta h)) z: at eta 1 the SDE,
    at eta 0 DPM-Solver++(2M).
    """

    name = "dpm-2m-sde"

    def __init__(self, config: configs.MultistepSDE, context: BuildContext) -> None:
        super().__init__(config, context)
        self.eta = config.eta

    def move(
        self, x: Tensor, x0: Tensor, here: Level, next: Level, state: History, noise: Noise
    ) -> tuple[Tensor, History]:
        h, last = log_step(here, next)
        d = midpoint(x0, h, state, self.limit)
        fresh = ratio(next, x) * like(torch.sqrt(-torch.expm1(-2.0 * self.eta * h)), x)
        moved = d + like(torch.exp(-(1.0 + self.eta) * h), x) * (x - d)
        moved = moved + fresh * noise.normal(0, x.shape[1:], x.dtype)
        return rows.where(last, x0, moved), state.then(x0, h)

"""Multistep samplers: higher order from predictions that were already made.

In lambda = -ln s, with h = ln(s / s'), the VE process has the exact solution
x' = e^-h x + int_0^1 h e^(-h (1 - u)) x0(u) du, u running from 0 at s to 1 at s'. These solvers
put a polynomial through the last predictions in place of x0(u). Each row remembers its own; a
row's first step is of first order, chosen by ``where``.

Where the log steps grow fast, a polynomial through old, close points is extrapolated far. A row
takes a lower order for a step whose h is more than ``max_growth`` times the one before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.sampler import GaussianSampler, Step
from dlmkit_samplers import configs

_TINY, _HUGE = 1e-6, 100.0
"""The least log step, of levels that are one number in single precision, and that to the clean
level, which is infinite but leaves finite numbers in the state."""


class History(NamedTuple):
    """The steps a row has taken, up to two of them: how many, then x0 and h, the last one first.

    ``taken`` and ``h`` are (B, 1, ...), to broadcast against x.
    """

    taken: Tensor
    x0: tuple[Tensor, Tensor]
    h: tuple[Tensor, Tensor]

    @staticmethod
    def empty(x: Tensor) -> History:
        h, zero = torch.ones_like(x[:, :1, :1], dtype=torch.float64), torch.zeros_like(x)
        return History(torch.zeros_like(h, dtype=torch.int64), (zero, zero), (h, h))

    def then(self, x0: Tensor, h: Tensor) -> History:
        """The history after a step of ``h`` along ``x0``."""
        return History((self.taken + 1).clamp(max=2), (x0, self.x0[0]), (h, self.h[0]))


def log_step(step: Step) -> Tensor:
    """h = ln(s / s') in float64, (B, 1, ...); of a step that ends clean, a number without use."""
    ratio, after = step.ratio.double(), step.next_ratio.double()
    return torch.log(ratio / after).clamp(_TINY, _HUGE)


def integrate(x: Tensor, h: Tensor, x0: Tensor, slope: Tensor, curve: Tensor) -> Tensor:
    """The exact x' for x0(u) = x0 + slope u + curve u^2."""
    first = -torch.expm1(-h)
    second = 1.0 - first / h
    third = 1.0 - 2.0 * second / h
    kept = torch.exp(-h).to(x.dtype) * x + first.to(x.dtype) * x0
    return kept + second.to(x.dtype) * slope + third.to(x.dtype) * curve


def gentle(h: Tensor, before: Tensor, limit: float) -> Tensor:
    """Whether ``h`` is at most ``limit`` times the log step before."""
    return h <= limit * before


def midpoint(x0: Tensor, h: Tensor, history: History, limit: float) -> Tensor:
    """D = x0 + (h / 2 h_before)(x0 - x0_before), DPM-Solver++(2M)'s; x0 at first order."""
    second = (history.taken > 0) & gentle(h, history.h[0], limit)
    weight = torch.where(second, h / (2.0 * history.h[0]), 0.0)
    return x0 + weight.to(x0.dtype) * (x0 - history.x0[0])


class MultistepSampler(GaussianSampler):
    """What the solvers here share: their limit, and a history as the state."""

    def __init__(self, config: configs.Multistep, context: BuildContext) -> None:
        self.limit = config.max_growth

    def init(self, x: Tensor) -> Any:
        return History.empty(x)


class DPM2M(MultistepSampler):
    """DPM-Solver++(2M) (2211.01095, algorithm 2): x' = r x + (1 - r) D, r = s' / s."""

    def move(self, x: Tensor, x0: Tensor, step: Step, state: History) -> tuple[Tensor, History]:
        h = log_step(step)
        d = midpoint(x0, h, state, self.limit)
        return d + torch.exp(-h).to(x.dtype) * (x - d), state.then(x0, h)


class DPM3M(MultistepSampler):
    """DPM-Solver++(3M): the parabola through three predictions (2211.01095, section 4.2 and B).

    With divided differences d0 = (x0 - x0_1) h / h_1, d1 = (x0_1 - x0_2) h / h_2 and
    curve = (d0 - d1) h / (h_1 + h_2), x0(u) = x0 + (d0 + curve h_1 / h) u + curve u^2, integrated
    exactly. The authors' code halves the weight of the curve; by halving the steps on the test-bed
    this form is of order 3.1 once started, and that one of 2.4.
    """

    def move(self, x: Tensor, x0: Tensor, step: Step, state: History) -> tuple[Tensor, History]:
        h = log_step(step)
        (x1, x2), (h1, h2) = state.x0, state.h
        second = (state.taken > 0) & gentle(h, h1, self.limit)
        third = second & (state.taken > 1) & gentle(h1, h2, self.limit)
        d0, d1 = (h / h1).to(x.dtype) * (x0 - x1), (h / h2).to(x.dtype) * (x1 - x2)
        curve = torch.where(third, (h / (h1 + h2)).to(x.dtype) * (d0 - d1), 0.0)
        slope = torch.where(second, d0 + (h1 / h).to(x.dtype) * curve, 0.0)
        return integrate(x, h, x0, slope, curve), state.then(x0, h)


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

    def init(self, x: Tensor) -> UniPCState:
        return UniPCState(torch.zeros_like(x), History.empty(x))

    def move(
        self, x: Tensor, x0: Tensor, step: Step, state: UniPCState
    ) -> tuple[Tensor, UniPCState]:
        h = log_step(step)
        history = state.history
        x = torch.where(history.taken > 0, self.corrected(state, x0), x)
        d = midpoint(x0, h, history, self.limit)
        moved = d + torch.exp(-h).to(x.dtype) * (x - d)
        return moved, UniPCState(x, history.then(x0, h))

    def corrected(self, state: UniPCState, ahead: Tensor) -> Tensor:
        """The last step again, now that the prediction ``ahead`` at its end is known."""
        taken, (x0, before), (h, h_before) = state.history
        parabola = (taken > 1) & gentle(h, h_before, self.limit)
        rise = ahead - x0
        back = (h / h_before).to(x0.dtype) * (x0 - before)
        share = (h / (h + h_before)).to(x0.dtype)
        curve = torch.where(parabola, share * (rise - back), 0.0)
        return integrate(state.x, h, x0, rise - curve, curve)


class DPM2MSDE(MultistepSampler):
    """SDE-DPM-Solver++(2M) (2211.01095, section 4.3 and appendix B), scaled by eta as k-diffusion.

    x' = r e^(-eta h) x + (1 - e^(-(1 + eta) h)) D + s' sqrt(1 - e^(-2 eta h)) z: at eta 1 the SDE,
    at eta 0 DPM-Solver++(2M).
    """

    def __init__(self, config: configs.MultistepSDE, context: BuildContext) -> None:
        super().__init__(config, context)
        self.eta = config.eta

    def move(self, x: Tensor, x0: Tensor, step: Step, state: History) -> tuple[Tensor, History]:
        h = log_step(step)
        d = midpoint(x0, h, state, self.limit)
        fresh = step.next_ratio * torch.sqrt(-torch.expm1(-2.0 * self.eta * h)).to(x.dtype)
        moved = d + torch.exp(-(1.0 + self.eta) * h).to(x.dtype) * (x - d)
        return moved + fresh * step.noise.normal(0, x.shape[1:], x.dtype), state.then(x0, h)

"""Samplers of Gaussian diffusions with one or two evaluations per step.

Here s = sigma / alpha is a step's ratio, and s' the next one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.sampler import (
    BoundDenoise,
    GaussianSampler,
    Step,
    TwoStageSampler,
    euler,
    per_row,
)
from dlmkit.core.schedule import Level
from dlmkit_samplers import configs


class Euler(GaussianSampler):
    """CDCD's sampler; the same as DDIM (2010.02502) and first-order DPM-Solver++."""

    def move(self, x: Tensor, x0: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        return euler(x, x0, step.ratio, step.next_ratio), state


class Ancestral(GaussianSampler):
    """Euler to s_down, then noise of standard deviation s_up, both set by eta.

    s_up^2 = eta^2 s'^2 (s^2 - s'^2) / s^2 and s_down^2 = s'^2 - s_up^2. At eta 1 this is the
    Gaussian posterior of DDPM (2006.11239) around the predicted x0.
    """

    def __init__(self, config: configs.Ancestral, context: BuildContext) -> None:
        self.eta = config.eta

    def move(self, x: Tensor, x0: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        s, s_next = step.ratio, step.next_ratio
        share = (s_next / s) ** 2
        up = self.eta * s_next * torch.sqrt((1.0 - share).clamp(min=0.0))
        down = torch.sqrt((s_next**2 - up**2).clamp(min=0.0))
        return euler(x, x0, s, down) + up * step.noise.normal(0, x.shape[1:], x.dtype), state


class Heun(TwoStageSampler):
    """Second order by averaging the slopes at both ends (EDM, 2206.00364, algorithm 1)."""

    def second(self, step: Step) -> Level:
        return step.next

    def slope(self, first: Tensor, second: Tensor) -> Tensor:
        return 0.5 * (first + second)


class EDMChurn(Heun):
    """Noise is added before every step of Heun's (EDM, 2206.00364, algorithm 2).

    s^ = s (1 + gamma), gamma = min(s_churn / N, sqrt(2) - 1) where s_tmin <= s <= s_tmax and 0
    elsewhere, N being the points of the grid. The prediction is that at s^.
    """

    def __init__(self, config: configs.EDMChurn, context: BuildContext) -> None:
        self.config = config

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        s, (alpha, sigma) = step.here.ratio, step.here
        inside = (s >= self.config.s_tmin) & (s <= self.config.s_tmax)
        gamma = min(self.config.s_churn / step.steps, math.sqrt(2.0) - 1.0) * inside.to(s.dtype)
        up = per_row(sigma * torch.sqrt(gamma * (2.0 + gamma)), x)
        x = x + self.config.s_noise * up * step.noise.normal(0, x.shape[1:], x.dtype)
        return super().step(denoise, x, step.starting(Level(alpha, sigma * (1.0 + gamma))), state)

"""Samplers of Gaussian diffusions, in x / alpha at the ratio s = sigma / alpha.

There every such process is the VE process dx / ds = (x - x0(x, s)) / s. ``here`` and ``next``
differ from row to row; where ``next`` is clean its ratio is 0 and a step ends on x0.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import Corruption, GaussianCorruption
from dlmkit.core.sampler import BoundDenoise, Sampler
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError
from dlmkit.noise import Noise
from dlmkit.types import Index, Rows
from dlmkit_samplers import configs


def gaussian(corruption: Corruption, who: str) -> GaussianCorruption:
    """``corruption`` itself. Raises RecipeError if it is not Gaussian."""
    if not isinstance(corruption, GaussianCorruption):
        raise RecipeError(
            f"{who} runs on Gaussian noise alone, and this space is noised by "
            f"{type(corruption).__name__}"
        )
    return corruption


def ratio(level: Level, x: Tensor) -> Tensor:
    """sigma / alpha, broadcast against ``x``."""
    alpha, sigma = level.like(x)
    return sigma / alpha


def euler(x: Tensor, x0: Tensor, s: Tensor, s_next: Tensor) -> Tensor:
    """x0 + (s_next / s)(x - x0): Euler's step, DDIM's, and exactly x0 at s_next = 0."""
    return x0 + (s_next / s) * (x - x0)


class GaussianSampler(Sampler):
    """A solver of the VE process: it moves x / alpha, and the corruption converts."""

    name: str
    """What errors call it."""

    def init(self, x: Tensor) -> Any:
        return ()

    def step(
        self,
        denoise: BoundDenoise,
        corruption: Corruption,
        x: Tensor,
        here: Level,
        next: Level,
        state: Any,
        noise: Noise,
        previous: Any,
    ) -> tuple[Tensor, Prediction, Any]:
        corruption = gaussian(corruption, f"sampler {self.name}")
        prediction = denoise(x, here, previous)
        ve, _ = corruption.to_ve(x, here)
        ve, state = self.move(ve, prediction.x0_step, here, next, state, noise)
        return corruption.from_ve(ve, next), prediction, state

    @abstractmethod
    def move(
        self, x: Tensor, x0: Tensor, here: Level, next: Level, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        """(x / alpha at ``next``, the new state) of ``x``, which is x / alpha at ``here``.

        Of both levels only the ratio counts; ``x0`` is the prediction at ``here``.
        """


class Euler(GaussianSampler):
    """CDCD's sampler; the same as DDIM (2010.02502) and first-order DPM-Solver++."""

    name = "euler"

    def __init__(self, config: configs.Nothing, context: BuildContext) -> None:
        pass

    def move(
        self, x: Tensor, x0: Tensor, here: Level, next: Level, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        return euler(x, x0, ratio(here, x), ratio(next, x)), state


class Ancestral(GaussianSampler):
    """Euler to s_down, then noise of standard deviation s_up, both set by eta.

    s_up^2 = eta^2 s'^2 (s^2 - s'^2) / s^2 and s_down^2 = s'^2 - s_up^2. At eta 1 this is the
    Gaussian posterior of DDPM (2006.11239) around the predicted x0.
    """

    name = "ancestral"

    def __init__(self, config: configs.Ancestral, context: BuildContext) -> None:
        self.eta = config.eta

    def move(
        self, x: Tensor, x0: Tensor, here: Level, next: Level, state: Any, noise: Noise
    ) -> tuple[Tensor, Any]:
        s, s_next = ratio(here, x), ratio(next, x)
        share = (s_next / s) ** 2
        up = self.eta * s_next * torch.sqrt((1.0 - share).clamp(min=0.0))
        down = torch.sqrt((s_next**2 - up**2).clamp(min=0.0))
        return euler(x, x0, s, down) + up * noise.normal(0, x.shape[1:], x.dtype), state


class EDMSampler(Sampler):
    """Second order by averaging the slopes at both ends (EDM, 2206.00364, algorithms 1 and 2).

    The step that ends clean is Euler's. The next step is fed the later of the two predictions.
    """

    name: str
    """What errors call it."""

    def init(self, x: Tensor) -> Any:
        return ()

    def evaluations(self, last: Rows) -> Index:
        return 2 - last.long()

    def step(
        self,
        denoise: BoundDenoise,
        corruption: Corruption,
        x: Tensor,
        here: Level,
        next: Level,
        state: Any,
        noise: Noise,
        previous: Any,
    ) -> tuple[Tensor, Prediction, Any]:
        corruption = gaussian(corruption, f"sampler {self.name}")
        x, here = self.start(x, here, noise)
        return *heun(denoise, corruption, x, here, next, previous), state

    @abstractmethod
    def start(self, x: Tensor, here: Level, noise: Noise) -> tuple[Tensor, Level]:
        """(x, its level) where the step starts from."""


class Heun(EDMSampler):
    """Heun's method (EDM, 2206.00364, algorithm 1): a step starts where it stands."""

    name = "heun"

    def __init__(self, config: configs.Nothing, context: BuildContext) -> None:
        pass

    def start(self, x: Tensor, here: Level, noise: Noise) -> tuple[Tensor, Level]:
        return x, here


def heun(
    denoise: BoundDenoise,
    corruption: GaussianCorruption,
    x: Tensor,
    here: Level,
    next: Level,
    previous: Any,
) -> tuple[Tensor, Prediction]:
    """Heun's step, Euler's where it ends clean: (x at ``next``, the first prediction)."""
    first = denoise(x, here, previous)
    ve, s = corruption.to_ve(x, here)
    s_next = ratio(next, x)
    ahead = euler(ve, first.x0_step, s, s_next)
    if next.all_clean():
        return corruption.from_ve(ahead, next), first
    last = next.sigma == 0
    # rows that end clean are evaluated again where they stand, and the result is not used
    there = rows.where(last, here, next)
    second = denoise(rows.where(last, x, corruption.from_ve(ahead, next)), there, first.feedback)
    slope = (ve - first.x0_step) / s + (ahead - second.x0_step) / ratio(there, x)
    ve = rows.where(last, ahead, ve + (s_next - s) * 0.5 * slope)
    feedback = rows.where(last, first.feedback, second.feedback)
    return corruption.from_ve(ve, next), replace(first, feedback=feedback)


class EDMChurn(EDMSampler):
    """Noise is added before every step of Heun's (EDM, 2206.00364, algorithm 2).

    s^ = s (1 + gamma), gamma = min(s_churn / N, sqrt(2) - 1) where s_tmin <= s <= s_tmax and 0
    elsewhere, N being the points of the grid. The prediction is that at s^.
    """

    name = "edm-churn"

    def __init__(self, config: configs.EDMChurn, context: BuildContext) -> None:
        self.config = config
        self.gamma = 0.0

    def for_grid(self, steps: int) -> EDMChurn:
        told = copy.copy(self)
        told.gamma = min(self.config.s_churn / steps, math.sqrt(2.0) - 1.0)
        return told

    def start(self, x: Tensor, here: Level, noise: Noise) -> tuple[Tensor, Level]:
        s = here.sigma / here.alpha
        inside = (s >= self.config.s_tmin) & (s <= self.config.s_tmax)
        gamma = self.gamma * inside.to(s.dtype)
        up = (here.sigma * torch.sqrt(gamma * (2.0 + gamma))).view(-1, *(1,) * (x.ndim - 1))
        x = x + self.config.s_noise * up * noise.normal(0, x.shape[1:], x.dtype)
        return x, Level(here.alpha, here.sigma * (1.0 + gamma))

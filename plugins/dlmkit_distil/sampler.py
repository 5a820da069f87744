"""Sampling of a consistency model in a few steps (2303.01469, algorithm 1)."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.options import Nothing
from dlmkit.core.sampler import BoundDenoise, GaussianSampler, Sampler, Step


class MultistepConsistency(GaussianSampler):
    """x' = x0 + s' z: the predicted end of the path, with fresh noise of the next level."""

    def move(self, x: Tensor, x0: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        return x0 + step.next_ratio * step.noise.normal(0, x.shape[1:], x.dtype), state


class MultistepGeodesic(Sampler):
    """The same on a sphere of radius sqrt(D): x' lies on the arc from the predicted end's direction
    to a fresh point, as far along it as the space noises tokens at the next level."""

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        self.corruption = context.part("space").corruption

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        prediction = denoise(x, step.here, step.previous)
        end = math.sqrt(x.shape[-1]) * F.normalize(prediction.x0_step, dim=-1)
        moved = self.corruption.corrupt(end, step.next, step.noise)
        return rows.where(step.last, prediction.x0_step, moved), prediction, state

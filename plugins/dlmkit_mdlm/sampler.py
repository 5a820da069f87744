"""MDLM's ancestral sampler (2406.07524, equation 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.sampler import BoundDenoise, Sampler, Step
from dlmkit.core.tokens import masked_share
from dlmkit_mdlm import configs

UNCOVER, TOKEN = range(2)


class Ancestral(Sampler):
    """A masked token is uncovered with the chance 1 - m_next / m_here, m the masked share.

    What it becomes is drawn from the prediction; what is uncovered never changes.
    """

    def __init__(self, config: configs.Nothing, context: BuildContext) -> None:
        self.space = context.part("space")

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        prediction = denoise(x, step.here, step.previous)
        u = step.noise.uniform(UNCOVER, x.shape[1:], torch.float64)
        stays = masked_share(step.next.like(u)) / masked_share(step.here.like(u))
        uncovered = (x == self.space.corruption.mask) & (u >= stays)
        token = self.space.draw(prediction.query, uncovered, step.noise, TOKEN)
        return torch.where(uncovered, token, x), prediction, state

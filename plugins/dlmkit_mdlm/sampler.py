"""MDLM's ancestral sampler (2406.07524, equation 7)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import Corruption
from dlmkit.core.sampler import BoundDenoise, Sampler
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit_mdlm import configs
from dlmkit_mdlm.schedule import masked_share
from dlmkit_mdlm.space import Masking

UNCOVER, TOKEN = range(2)


def categorical(log_p: Float[Tensor, "*shape V"], u: Float[Tensor, "*shape V"]) -> Tensor:
    """A draw from ``log_p`` (unnormalised) by uniform ``u``: the Gumbel-max trick, in float64.

    In single precision u stops at 1 - 2^-24, which cuts the Gumbels off near 16.6, so that rare
    tokens never win: an unasked-for temperature below 1 (2409.02908, section 4).
    """
    return (log_p.double() - torch.log(-torch.log(u.double()))).argmax(dim=-1)


class Ancestral(Sampler):
    """A masked token is uncovered with the chance 1 - m_next / m_here, m the masked share.

    What it becomes is drawn from the prediction; what is uncovered never changes.
    """

    def __init__(self, config: configs.Nothing, context: BuildContext) -> None:
        self.space = context.part("space")

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
        assert isinstance(corruption, Masking)
        prediction = denoise(x, here, previous)
        logits = self.space.logits(prediction.query)
        u = noise.uniform(UNCOVER, x.shape[1:], torch.float64)
        stays = masked_share(next.like(u)) / masked_share(here.like(u))
        token = categorical(logits, noise.uniform(TOKEN, logits.shape[1:], torch.float64))
        return torch.where((x == corruption.mask) & (u >= stays), token, x), prediction, state

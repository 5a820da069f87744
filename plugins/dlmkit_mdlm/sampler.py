"""MDLM's ancestral sampler (2406.07524, equation 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.sampler import BoundDenoise, Sampler, Step
from dlmkit.core.tokens import categorical, masked_share, positions_at_once
from dlmkit.noise import Noise
from dlmkit.types import Ids, Mask, Query
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
        token = self._tokens(prediction.query, uncovered, step.noise)
        return torch.where(uncovered, token, x), prediction, state

    def _tokens(self, query: Query, uncovered: Mask, noise: Noise) -> Ids:
        """A token at every position that is ``uncovered``, drawn there alone; anything elsewhere.

        In blocks, since a draw takes several float64 numbers for each token of the vocabulary.
        """
        size = self.space.vocab_size
        tokens = torch.zeros_like(uncovered, dtype=torch.int64)
        block = positions_at_once(query.device, size)
        for at in zip(*(index.split(block) for index in rows.places(uncovered)), strict=True):
            logits = self.space.logits(query[at][None])[0]
            u = noise.uniform(TOKEN, (query.shape[1], size), torch.float64, at)
            tokens[at] = categorical(logits, u)
        return tokens

"""MDLM's ancestral sampler (2406.07524, equation 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import Corruption
from dlmkit.core.sampler import BoundDenoise, Sampler
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import MaskCorruption, categorical, masked_share, positions_at_once
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
        assert isinstance(corruption, MaskCorruption)
        prediction = denoise(x, here, previous)
        u = noise.uniform(UNCOVER, x.shape[1:], torch.float64)
        stays = masked_share(next.like(u)) / masked_share(here.like(u))
        uncovered = (x == corruption.mask) & (u >= stays)
        token = self._tokens(prediction.query, uncovered, noise)
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

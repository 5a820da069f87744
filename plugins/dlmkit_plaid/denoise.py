"""Plaid's output prior (2305.18619, section 3): what the noisy token itself says."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlmkit.core.denoise import Denoise, Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.schedule import Level
from dlmkit.types import Index, Query


def risen(step: Index | None, ramp: int) -> float | Tensor:
    """The prior's strength after ``step`` of ``ramp`` steps, from 0 to 1; 1 outside training."""
    return 1.0 if step is None else (step[0] / ramp).clamp(max=1.0)


class OutputPrior(Denoise):
    """Adds ``strength`` times (alpha / sigma^2) x . e_v to the logits of a tied space.

    At 1, with embeddings of one norm, that is log p(x | v) up to a constant, and the network is
    left with what the context says.
    """

    def __init__(
        self, space: EmbeddingSpace, network: ScoreNetwork, strength: float | Tensor = 1.0
    ) -> None:
        self.space = space
        self.network = network
        self.strength = strength

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros((*x.shape[:2], self.space.dim))

    def query(self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning) -> Query:
        """What the space reads: the network's query, moved towards x."""
        read = self.space.corruption.input(x, level)
        query: Query = self.network(read, level, conditioning, previous).to(x.dtype)
        alpha, sigma = level.like(x)
        return query + self.strength * alpha / sigma.square() * x

    def __call__(
        self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning
    ) -> Prediction:
        query = self.query(x, level, previous, conditioning)
        x0, lse = self.space.read(query)
        x0_step = torch.where(conditioning.given[..., None], conditioning.clean.to(x0.dtype), x0)
        return Prediction(x0_step, query, lse, x0, x0_step)

    def prepared(
        self, space: EmbeddingSpace, network: Callable[[ScoreNetwork], ScoreNetwork]
    ) -> OutputPrior:
        return OutputPrior(space, network(self.network), self.strength)

"""Plaid's output prior (2305.18619, section 3): what the noisy token itself says."""

from __future__ import annotations

from torch import Tensor

from dlmkit.core.denoise import ModelDenoise
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.schedule import Level
from dlmkit.types import Index, Query


def risen(step: Index | None, ramp: int) -> float | Tensor:
    """The prior's strength after ``step`` of ``ramp`` steps, from 0 to 1; 1 outside training."""
    return 1.0 if step is None else (step[0] / ramp).clamp(max=1.0)


class OutputPrior(ModelDenoise):
    """Adds ``strength`` times (alpha / sigma^2) x . e_v to the logits of a tied space.

    At 1, with embeddings of one norm, that is log p(x | v) up to a constant, and the network is
    left with what the context says.
    """

    def __init__(
        self,
        space: EmbeddingSpace,
        network: ScoreNetwork,
        feedback: bool = True,
        strength: float | Tensor = 1.0,
    ) -> None:
        super().__init__(space, network, feedback)
        self.strength = strength

    def query(self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning) -> Query:
        query = super().query(x, level, previous, conditioning).to(x.dtype)
        alpha, sigma = level.like(x)
        return query + self.strength * alpha / sigma.square() * x

"""CANDI (2510.22510): a share of the tokens is noised, by a sigma that rises with that share.

x is (B, L, V + 1): of a position that is known its one-hot vector and 1, of any other that vector
in Gaussian noise and 0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise, Prediction
from dlmkit.core.embedding import Corruption, EmbeddingSpace
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.options import Dropping, Nothing
from dlmkit.core.sampler import BoundDenoise, Sampler, Step, per_row
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import IMPOSSIBLE, categorical, masked_share, masking_rate
from dlmkit.noise import Noise
from dlmkit.types import Embedded, Ids, Logits, Mask, Probabilities, Query
from dlmkit_candi.plugin import Hybrid

LOST, GAUSSIAN = range(2)
REVEALED, TOKEN = range(2)


class HybridNoise(Corruption):
    """A token is noised with the level's masked share as its chance."""

    def __init__(self, table: nn.Embedding, config: Hybrid) -> None:
        self.table, self.mixed = table, config.mixed
        self.low, self.high = config.low, config.high

    def sigma(self, level: Level) -> Tensor:
        """At which a token's rank among V is, on average, where the level says.

        Another one outdoes it with the chance Phi(-1 / (sigma sqrt(2))); V - 1 of V are others.
        The share of that rank rises linearly with the share of noised tokens.
        """
        size = self.table.num_embeddings - 1
        rank = self.low + (self.high - self.low) * masked_share(level).double()
        quantile: Tensor = torch.special.ndtri(rank * size / (size - 1))
        return -math.sqrt(0.5) / quantile

    def corrupt(self, x0: Tensor, level: Level, noise: Noise) -> Tensor:
        u = noise.uniform(LOST, x0.shape[1:-1])
        lost = u < masked_share(level.like(u))
        noisy = x0 + self._gaussian(x0, level, noise)
        return torch.where(lost[..., None], F.pad(noisy[..., :-1], (0, 1)), x0)

    def prior(self, like: Tensor, level: Level, noise: Noise) -> Tensor:
        return self._gaussian(like, level, noise)

    def _gaussian(self, like: Tensor, level: Level, noise: Noise) -> Tensor:
        length, size = like.shape[1], like.shape[2] - 1
        drawn = noise.normal(GAUSSIAN, (length, size), like.dtype)
        return F.pad(per_row(self.sigma(level), like) * drawn, (0, 1))

    def input(self, x: Tensor, level: Level) -> Embedded:
        """Rows of norm sqrt(D): a known token's, or half the mask's and half what noise left."""
        table = math.sqrt(self.table.embedding_dim) * F.normalize(self.table.weight, dim=-1)
        read = x[..., :-1] @ table[:-1]
        scaled = torch.rsqrt(1.0 + per_row(self.sigma(level), x).square()) * read
        return torch.where(x[..., -1:] > 0, read, torch.lerp(scaled, table[-1], self.mixed))

    def log_likelihood(self, points: Tensor, x: Tensor, level: Level) -> Logits:
        """x_v / sigma^2 of a noised position; a known one is certain."""
        vectors, known = x[..., :-1], x[..., -1:] > 0
        said = vectors / per_row(self.sigma(level), x).square()
        return torch.where(known, IMPOSSIBLE * (1.0 - vectors), said)


class HybridSpace(EmbeddingSpace):
    """x0 is a one-hot vector and 1, (B, L, V + 1); the network puts out the logits."""

    corruption: HybridNoise
    drawn = True

    def __init__(self, config: Hybrid, context: BuildContext) -> None:
        super().__init__()
        self.vocab_size = self.query_dim = context.vocab_size
        self.dim = config.dim
        self.table = nn.Embedding(self.vocab_size + 1, config.dim)
        self.corruption = HybridNoise(self.table, config)

    def embed(self, ids: Ids) -> Tensor:
        return self.expect(F.one_hot(ids, self.vocab_size).to(self.table.weight.dtype))

    def logits(self, query: Query) -> Logits:
        return query

    def expect(self, probabilities: Probabilities) -> Tensor:
        return F.pad(probabilities, (0, 1), value=1.0)

    def settled(self, x: Tensor) -> Mask:
        return x[..., -1] > 0

    def decode(self, x: Tensor, query: Query) -> Ids:
        """What is known stays; of the rest the likeliest token."""
        return torch.where(self.settled(x)[..., None], x[..., :-1], query).argmax(dim=-1)


class HybridDenoise(ModelDenoise):
    """Predicts noised tokens; known ones are carried over. It reads no previous prediction."""

    def __call__(
        self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning
    ) -> Prediction:
        query = self.query(x, level, previous, conditioning).to(x.dtype)
        certain = IMPOSSIBLE * (1.0 - x[..., :-1])
        query = torch.where(x[..., -1:] > 0, certain, query)
        x0, lse = self.space.read(query)
        return Prediction(x0, query, lse, x0, previous)


class HybridCrossEntropy(RecipeObjective):
    """E over t of m'(t) / m(t) times the cross-entropy of the noised tokens, over t's density."""

    def denoise(self) -> HybridDenoise:
        return HybridDenoise(self.space, self.network, feedback=False)

    def __init__(self, config: Dropping, context: BuildContext) -> None:
        super().__init__(context, config)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised = self.noised(batch, draws)
        logits = noised.query().float().transpose(1, 2)
        entropy = F.cross_entropy(logits, batch.ids, reduction="none")
        lost = torch.where(noised.x[..., -1] > 0, 0.0, entropy)
        weight = masking_rate(self.schedule, noised.t) / self.schedule.pdf(noised.t)
        return self.loss(lost, noised, weight)


class HybridSampler(Sampler):
    """Noised positions move by Euler's step in sigma; then some are drawn from the prediction,
    each with the chance 1 - m_next / m_here, and stay."""

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        self.space: HybridSpace = context.part("space")

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        prediction = denoise(x, step.here, step.previous)
        p, sigma = prediction.x0_step[..., :-1], self.space.corruption.sigma
        ratio = per_row(sigma(step.next) / sigma(step.here), x)
        flowed = F.pad(p + ratio * (x[..., :-1] - p), (0, 1))
        u = step.noise.uniform(REVEALED, x.shape[1:2], torch.float64)
        stays = masked_share(step.next.like(u)) / masked_share(step.here.like(u))
        gumbels = step.noise.uniform(TOKEN, p.shape[1:], torch.float64)
        token = self.space.embed(categorical(p.clamp(min=0.0).double().log(), gumbels))
        moved = torch.where((u >= stays)[..., None], token.to(x.dtype), flowed)
        return torch.where(x[..., -1:] > 0, x, moved), prediction, state

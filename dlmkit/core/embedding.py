"""Embedding spaces and the corruption they own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.types import Embedded, Ids, Logits, PerPosition, Probabilities, Query


class Corruption(ABC):
    """How clean and noise mix in one space. ``x`` is any row-first tensor (B, L, ...)."""

    @abstractmethod
    def corrupt(self, x0: Tensor, level: Level, noise: Noise) -> Tensor:
        """A draw of x given the clean ``x0`` at ``level``."""

    @abstractmethod
    def prior(self, like: Tensor, level: Level, noise: Noise) -> Tensor:
        """The x that sampling starts from at ``level``: the shape and dtype of ``like``."""

    @abstractmethod
    def input(self, x: Tensor, level: Level) -> Embedded:
        """What the network reads of ``x``: always (B, L, D)."""


class GaussianCorruption(Corruption):
    """x = alpha * x0 + sigma * noise, for VE, VP and flow alike.

    The network reads x / sqrt(alpha^2 + sigma^2), of unit variance where x0 has unit variance
    (CDCD, section 4.2: 1 / sqrt(t^2 + 1)). Gaussian solvers run in x / alpha at the
    noise-to-signal ratio sigma / alpha, where all of these processes are the VE process.
    """

    def corrupt(self, x0: Tensor, level: Level, noise: Noise) -> Tensor:
        alpha, sigma = level.like(x0)
        return alpha * x0 + sigma * noise.normal(0, x0.shape[1:], x0.dtype)

    def prior(self, like: Tensor, level: Level, noise: Noise) -> Tensor:
        _, sigma = level.like(like)
        return sigma * noise.normal(0, like.shape[1:], like.dtype)

    def input(self, x: Tensor, level: Level) -> Embedded:
        alpha, sigma = level.like(x)
        return x * torch.rsqrt(alpha * alpha + sigma * sigma)

    def to_ve(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """(x / alpha, sigma / alpha), the second broadcast against the first."""
        alpha, sigma = level.like(x)
        return x / alpha, sigma / alpha

    def from_ve(self, x: Tensor, level: Level) -> Tensor:
        """Back from x / alpha at ``level``."""
        return x * level.like(x).alpha


class EmbeddingSpace(nn.Module, ABC):
    """Tokens as points, and a network's hidden vectors as distributions over tokens.

    ``vocab_size`` is V; ``dim`` is D, the channels of x0 and of what the network reads;
    ``query_dim`` is Q, the channels that the network must put out; ``corruption`` is how this
    space is noised. ``tied`` says that logits(q) = q . e_v, free of bias, and x0 = sum_v p_v e_v
    with one table e, so that sum_v p_v logits_v = q . x0: statistics then need no V-sized tensor.
    """

    vocab_size: int
    dim: int
    query_dim: int
    corruption: Corruption
    tied: bool = False

    @abstractmethod
    def embed(self, ids: Ids) -> Tensor:
        """The clean x0 of token ids, (B, L, ...)."""

    @abstractmethod
    def logits(self, query: Query) -> Logits:
        """Unnormalised log-probabilities of every token."""

    @abstractmethod
    def expect(self, probabilities: Probabilities) -> Tensor:
        """The mean of x0 under ``probabilities``: ``expect(one_hot(ids)) == embed(ids)``."""

    def read(self, query: Query) -> tuple[Tensor, PerPosition]:
        """(mean of x0, log-normaliser) of the prediction: override where it is cheaper fused."""
        logits = self.logits(query)
        return self.expect(logits.softmax(dim=-1)), logits.logsumexp(dim=-1)

    def decode(self, x: Tensor, query: Query) -> Ids:
        """The tokens of rows that end at ``x``, last predicted by ``query``: the likeliest ones.

        A discrete space overrides it to keep the tokens that ``x`` has already settled on.
        """
        return self.logits(query).argmax(dim=-1)

"""The one callable that samplers, guidance and likelihoods meet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.schedule import Level
from dlmkit.core.vocabulary import Top
from dlmkit.types import PerPosition, Query


@dataclass(frozen=True)
class Prediction:
    """What the model believes at one level, row-first.

    ``x0_step`` is what a sampler steps towards; guidance and temperature may move it.
    ``query``, ``lse`` and ``x0_mean`` describe the distribution over tokens that statistics and
    decoding read: logits = space.logits(query), lse their log-sum-exp, x0_mean the mean of x0.
    ``feedback`` is what the next call gets as ``previous``. ``top``, the likeliest tokens, is
    filled in where a statistic asks for them.
    """

    x0_step: Tensor
    query: Query
    lse: PerPosition
    x0_mean: Tensor
    feedback: Any
    top: Top | None = None


class Denoise(ABC):
    """Noisy rows at a level in, a :class:`Prediction` out. Pure: nothing is kept between calls."""

    @abstractmethod
    def start(self, x: Tensor) -> Any:
        """The ``previous`` of a first call: a row-first value, one entry a guidance branch."""

    @abstractmethod
    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        """The prediction for ``x`` (B, L, ...) at ``level``."""

    def prepared(
        self, space: EmbeddingSpace, network: Callable[[ScoreNetwork], ScoreNetwork]
    ) -> Denoise:
        """This denoiser for a run in which no weight changes.

        ``space`` stands for its own space and ``network`` maps its own network to the one to
        run. A denoiser that has neither is its own.
        """
        return self


class ModelDenoise(Denoise):
    """Score interpolation by a space and a network (CDCD, equations 6 and 8).

    x0_hat is the mean of the embeddings under the predicted distribution; given positions are
    known, so there it is their own embedding.
    """

    def __init__(self, space: EmbeddingSpace, network: ScoreNetwork) -> None:
        self.space = space
        self.network = network

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros((*x.shape[:2], self.space.dim))

    def __call__(
        self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning
    ) -> Prediction:
        read = self.space.corruption.input(x, level)
        query = self.network(read, level, conditioning, previous)
        x0, lse = self.space.read(query)
        x0_step = torch.where(conditioning.given[..., None], conditioning.clean.to(x0.dtype), x0)
        return Prediction(x0_step, query.to(x0.dtype), lse, x0, x0_step)

    def prepared(
        self, space: EmbeddingSpace, network: Callable[[ScoreNetwork], ScoreNetwork]
    ) -> ModelDenoise:
        return ModelDenoise(space, network(self.network))


class CountingDenoise(Denoise):
    """Counts row evaluations of ``inner``, exactly: one a row and call."""

    def __init__(self, inner: Denoise) -> None:
        self.inner = inner
        self.calls = 0
        self.rows = 0

    def start(self, x: Tensor) -> Any:
        return self.inner.start(x)

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        self.calls += 1
        self.rows += x.shape[0]
        return self.inner(x, level, previous, conditioning)

    def prepared(
        self, space: EmbeddingSpace, network: Callable[[ScoreNetwork], ScoreNetwork]
    ) -> CountingDenoise:
        return CountingDenoise(self.inner.prepared(space, network))

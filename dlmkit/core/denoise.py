"""The one callable that samplers, guidance and likelihoods meet."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmkit.core.cache import Cache
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError
from dlmkit.kernels.vocabulary import Top
from dlmkit.rows import take
from dlmkit.types import Index, PerPosition, Query


@dataclass(frozen=True)
class Prediction:
    """What the model believes at one level, row-first.

    ``x0_step`` is what a sampler steps towards; guidance and temperature may move it.
    ``query``, ``lse`` and ``x0_mean`` describe the distribution over tokens that statistics and
    decoding read: logits = space.logits(query), lse their log-sum-exp, x0_mean the mean of x0.
    ``feedback`` is what the next call gets as ``previous``. ``top``, the likeliest tokens, is
    filled in where a statistic asks for them. ``log_p``, where a
    denoiser of masked tokens knows it, is the log-probability that the network gives each token
    that is written: ``query`` says that they are certain.
    """

    x0_step: Tensor
    query: Query
    lse: PerPosition
    x0_mean: Tensor
    feedback: Any
    top: Top | None = None
    log_p: PerPosition | None = None


class Shown(NamedTuple):
    """The first ``rows`` of a pass see a first prediction, of which ``made`` are computed.

    ``made`` is ``rows``, or 1 where this process has none and another has some at the same time:
    every process of a sharded run makes the same calls of the network.
    """

    rows: int
    made: int


class Spent(NamedTuple):
    """In feedback: how often each row was evaluated so far, where that is not once a call."""

    evaluations: Index


def spent(feedback: Any) -> Index | None:
    """The sum of all :class:`Spent` in ``feedback``, one a guidance branch; None: there is none."""
    if isinstance(feedback, Spent):
        return feedback.evaluations
    parts = [spent(part) for part in feedback] if isinstance(feedback, tuple) else []
    counts = [part for part in parts if part is not None]
    return torch.stack(counts).sum(dim=0) if counts else None


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

    def keeping(self, cache: Cache) -> Denoise:
        """This denoiser with keys and values kept between calls, as ``cache`` says.

        Of masks that it does not compute it says nothing: all tokens are alike there. Raises
        RecipeError if the network cannot do that.
        """
        blocks = "attends block by block, " if cache.kind == "exact" else ""
        raise RecipeError(
            f"sample.cache: {cache.kind} needs a masked model whose network {blocks}can keep keys "
            "and values and reads no noise level; leave the key out"
        )

    def reusing(self, counted: Denoise) -> Denoise:
        """What sampling asks for predictions: ``counted``, or what asks it less often.

        ``counted`` is this denoiser with its evaluations counted. One whose answer cannot have
        changed since its last may give that again, and then its feedback holds a :class:`Spent`.
        """
        return counted


class ModelDenoise(Denoise):
    """Score interpolation by a space and a network (CDCD, equations 6 and 8).

    x0_hat is the mean of the embeddings under the predicted distribution; given positions are
    known, so there it is their own embedding. Without ``feedback`` no call sees a prediction of
    the one before.
    """

    def __init__(self, space: EmbeddingSpace, network: ScoreNetwork, feedback: bool = True) -> None:
        self.space = space
        self.network = network
        self.feedback = feedback

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros((*x.shape[:2], self.space.dim))

    def query(self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning) -> Query:
        """What the space reads logits from, (B, L, query_dim)."""
        read = self.space.corruption.input(x, level)
        query: Query = self.network(read, level, conditioning, previous)
        return query

    def __call__(
        self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning
    ) -> Prediction:
        query = self.query(x, level, previous, conditioning)
        x0, lse = self.space.read(query)
        x0_step = torch.where(conditioning.given[..., None], conditioning.clean.to(x0.dtype), x0)
        feedback = x0_step if self.feedback else previous
        return Prediction(x0_step, query.to(x0.dtype), lse, x0, feedback)

    @torch.no_grad()
    def first_predictions(
        self, shown: Shown, x: Tensor, level: Level, conditioning: Conditioning
    ) -> Tensor:
        """``previous`` of a second call: that of the rows ``shown`` predicted, without gradient,
        the others' as at the start (self-conditioning, 2208.04202, section 3.2).
        """
        previous = self.start(x)
        if shown.made:
            first = torch.arange(shown.made, device=x.device)
            predicted = self(*take((x, level, previous, conditioning), first)).feedback
            previous[: shown.rows] = predicted[: shown.rows]
        return previous

    def prepared(
        self, space: EmbeddingSpace, network: Callable[[ScoreNetwork], ScoreNetwork]
    ) -> ModelDenoise:
        other = copy.copy(self)
        other.space, other.network = space, network(self.network)
        return other


class WithoutFeedback(ModelDenoise):
    """Reads no previous prediction, and predicts what is given like anything else: for spaces whose
    x0 is not what the network reads of a known token, such as a simplex."""

    def __call__(
        self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning
    ) -> Prediction:
        query = self.query(x, level, previous, conditioning).to(x.dtype)
        x0, lse = self.space.read(query)
        return Prediction(x0, query, lse, x0, previous)


class OutputPrior(ModelDenoise):
    """Adds ``strength`` times (alpha / sigma^2) x . e_v to the logits of a tied space (Plaid,
    2305.18619, section 3).

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


class Wrapped(Denoise):
    """A denoiser around another: what it does not override is that of ``inner``."""

    def __init__(self, inner: Denoise) -> None:
        self.inner = inner

    def start(self, x: Tensor) -> Any:
        return self.inner.start(x)

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        return self.inner(x, level, previous, conditioning)

    def prepared(
        self, space: EmbeddingSpace, network: Callable[[ScoreNetwork], ScoreNetwork]
    ) -> Wrapped:
        other = copy.copy(self)
        other.inner = self.inner.prepared(space, network)
        return other


class CountingDenoise(Wrapped):
    """Counts row evaluations of ``inner``, exactly: one per row and call."""

    def __init__(self, inner: Denoise) -> None:
        super().__init__(inner)
        self.calls = 0
        self.rows = 0

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        self.calls += 1
        self.rows += x.shape[0]
        return super().__call__(x, level, previous, conditioning)

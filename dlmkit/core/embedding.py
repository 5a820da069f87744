"""Embedding spaces and the corruption they own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmkit.core.schedule import Level
from dlmkit.kernels import vocabulary
from dlmkit.kernels.vocabulary import Tables, Top
from dlmkit.noise import Noise
from dlmkit.types import Embedded, Ids, Logits, Mask, PerPosition, Probabilities, Query


class Corruption(ABC):
    """How clean and noise mix in one space. ``x`` is any row-first tensor (B, L, ...).

    ``by_position`` says that what is drawn for a position is the same in rows of any length, as of
    uniform numbers and unlike normal ones: then rows need be no longer than their texts.
    """

    by_position = False

    @abstractmethod
    def corrupt(self, x0: Tensor, level: Level, noise: Noise) -> Tensor:
        """A draw of x given the clean ``x0`` at ``level``."""

    @abstractmethod
    def prior(self, like: Tensor, level: Level, noise: Noise) -> Tensor:
        """The x that sampling starts from at ``level``: the shape and dtype of ``like``."""

    @abstractmethod
    def input(self, x: Tensor, level: Level) -> Embedded:
        """What the network reads of ``x``: always (B, L, D)."""

    def clean(self, x0: Tensor) -> Embedded:
        """What the network reads of known tokens: of ``x0`` without noise."""
        dtype = x0.dtype if x0.is_floating_point() else None
        ones = torch.ones(len(x0), dtype=dtype, device=x0.device)
        return self.input(x0, Level(ones, torch.zeros_like(ones)))

    @property
    def unknown(self) -> Tensor | float:
        """What the network reads of a given token that it is not told, such as a mask's row."""
        return 0.0

    def log_likelihood(self, points: Tensor, x: Tensor, level: Level) -> Logits | None:
        """log p(x | token) of every token, up to a constant of the position.

        ``points`` is x0 of every token, (V, ...). None: it has no closed form, and then a
        model's gain from context cannot be told.
        """
        return None


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

    def log_likelihood(self, points: Tensor, x: Tensor, level: Level) -> Logits:
        """(alpha x . e_v - alpha^2 |e_v|^2 / 2) / sigma^2; ``x`` is not scaled."""
        alpha, sigma = level.like(x)
        points = points.to(x.dtype)
        squares = 0.5 * alpha.square() * points.square().sum(-1)
        return (alpha * (x @ points.T) - squares) / sigma.square()


class EmbeddingSpace(nn.Module, ABC):
    """Tokens as points, and a network's hidden vectors as distributions over tokens.

    ``vocab_size`` is V; ``dim`` is D, the channels of x0 and of what the network reads;
    ``query_dim`` is Q, the channels that the network must put out; ``corruption`` is how this
    space is noised. ``tied`` says that logits(q) = q . e_v, free of bias, and x0 = sum_v p_v e_v
    with one table e, so that sum_v p_v logits_v = q . x0: statistics then need no V-sized tensor.
    ``drawn`` says that samplers draw tokens from its predictions, where others step towards x0.
    """

    vocab_size: int
    dim: int
    query_dim: int
    corruption: Corruption
    tied: bool = False
    drawn: bool = False

    @abstractmethod
    def embed(self, ids: Ids) -> Tensor:
        """The clean x0 of token ids, (B, L, ...)."""

    @abstractmethod
    def logits(self, query: Query) -> Logits:
        """Unnormalised log-probabilities of every token."""

    @abstractmethod
    def expect(self, probabilities: Probabilities) -> Tensor:
        """The mean of x0 under ``probabilities``: ``expect(one_hot(ids)) == embed(ids)``.

        Tokens that are no points have no mean: a discrete space gives the likeliest.
        """

    def tables(self) -> Tables | None:
        """What scores tokens and what is averaged, if both are linear and free of bias.

        Such a space decodes the likeliest tokens; None: it is not of this kind.
        """
        return None

    def read(self, query: Query) -> tuple[Tensor, PerPosition]:
        """(mean of x0, log-normaliser) of the prediction, differentiable where gradients are on.

        Without gradients, a space with :meth:`tables` holds no V-sized tensor.
        """
        tables = None if torch.is_grad_enabled() else self.tables()
        if tables is None:
            logits = self.logits(query)
            return self.expect(logits.softmax(dim=-1)), logits.logsumexp(dim=-1)
        tables = tables.to(query.dtype)
        return _read(vocabulary.choose(tables), query, tables)

    def top(self, query: Query) -> Top:
        """The likeliest token of every position, with its logit and the runner-up's."""
        return vocabulary.top_of(self.logits(query).clone())

    def decode(self, x: Tensor, query: Query) -> Ids:
        """The tokens of rows that end at ``x``, last predicted by ``query``: the likeliest ones.

        A discrete space overrides it to keep the tokens that ``x`` has already settled on.
        """
        return self.logits(query).argmax(dim=-1)

    def settled(self, x: Tensor) -> Mask | None:
        """The positions of ``x`` whose token is known for good; None: a text has none before it
        ends."""
        return None

    def prepared(self, dtype: torch.dtype | None = None) -> EmbeddingSpace:
        """This space for a time in which its weights do not change, such as one sampling run.

        With :meth:`tables`, they are computed here once, and the vocabulary step runs in
        ``dtype`` (default: theirs); any other space is its own.
        """
        with torch.no_grad():
            tables = self.tables()
        return self if tables is None else PreparedSpace(self, tables, dtype)

    @property
    def kernel(self) -> str:
        """What :meth:`read` runs on without gradients, and why on nothing faster."""
        with torch.no_grad():
            tables = self.tables()
        return "plain" if tables is None else str(vocabulary.choose(tables))


class PreparedSpace(EmbeddingSpace):
    """``space`` with its tables computed once; good for as long as its weights do not change."""

    def __init__(self, space: EmbeddingSpace, tables: Tables, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.vocab_size, self.dim, self.query_dim = space.vocab_size, space.dim, space.query_dim
        self.corruption, self.tied = space.corruption, space.tied
        self.register_buffer("table", tables.values, persistent=False)  # tells the device
        self._tables = tables
        self._step = tables if dtype is None else tables.to(dtype)
        self._kernel = vocabulary.choose(self._step)

    def tables(self) -> Tables:
        return self._tables

    def embed(self, ids: Ids) -> Tensor:
        return F.embedding(ids, self._tables.values)

    def logits(self, query: Query) -> Logits:
        return query @ self._tables.keys.T

    def expect(self, probabilities: Probabilities) -> Tensor:
        return probabilities @ self._tables.values

    def read(self, query: Query) -> tuple[Tensor, PerPosition]:
        return _read(self._kernel, query, self._step)

    def top(self, query: Query) -> Top:
        shape = query.shape[:2]
        best = vocabulary.top(query.flatten(0, 1), self._tables.keys)
        return Top(*(values.view(shape) for values in best))

    def decode(self, x: Tensor, query: Query) -> Ids:
        return self.top(query).ids

    @property
    def kernel(self) -> str:
        return str(self._kernel)


def _read(kernel: vocabulary.Kernel, query: Query, tables: Tables) -> tuple[Tensor, PerPosition]:
    mean, lse = kernel(query.flatten(0, 1).to(tables.keys.dtype), tables)
    return mean.view(*query.shape[:2], -1), lse.view(query.shape[:2])

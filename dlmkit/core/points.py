"""Embedding spaces whose tokens are points on a sphere of radius sqrt(d)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.counts import start_from_counts
from dlmkit.core.data import Data
from dlmkit.core.embedding import EmbeddingSpace, GaussianCorruption
from dlmkit.core.options import Normalised
from dlmkit.core.start import TextStart
from dlmkit.kernels.vocabulary import Tables
from dlmkit.types import Embedded, Ids, Logits, Probabilities, Query


class NormalisedSpace(EmbeddingSpace, TextStart):
    """Embeddings L2-normalised at every use and scaled by sqrt(d) (CDCD, section 4.2).

    Each component then has unit variance, whatever the free parameter underneath, and the
    gradient flows through the normalisation. The tied head is free of bias and scores tokens by
    the same points: logits = q . e_v.

    With ``start: counts`` the table begins at the points that :mod:`dlmkit.core.counts` gives the
    tokens of the training text, at the size that ``init_std`` gives random ones.
    """

    weight: Tensor

    def __init__(self, config: Normalised, context: BuildContext) -> None:
        super().__init__()
        self.vocab_size = context.vocab_size
        self.dim = config.dim
        self.query_dim = config.head_width or config.dim
        self.tied = config.head == "tied"
        self.corruption = GaussianCorruption()
        self.counts = config.counts
        weight = torch.randn(context.vocab_size, config.dim) * config.init_std
        if config.trained:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
        self.head = (
            nn.Linear(self.query_dim, context.vocab_size, bias=False)
            if config.head == "untied"
            else None
        )

    def start_from(self, data: Data) -> None:
        if self.counts is not None:
            start_from_counts(self.weight, data, self.counts)

    def table(self) -> Tensor:
        """The embeddings of all tokens, (V, D), each of norm sqrt(D)."""
        return self._on_sphere(self.weight)

    def embed(self, ids: Ids) -> Embedded:
        # the rows that are read and not the table, which logits normalise in the same step
        return self._on_sphere(F.embedding(ids, self.weight))

    def _on_sphere(self, points: Tensor) -> Tensor:
        return F.normalize(points, dim=-1).mul_(math.sqrt(self.dim))  # in place: no second table

    def logits(self, query: Query) -> Logits:
        return query @ self.table().T if self.head is None else self.head(query)

    def expect(self, probabilities: Probabilities) -> Embedded:
        return probabilities @ self.table()

    def tables(self) -> Tables:
        table = self.table()
        return Tables(table if self.head is None else self.head.weight, table)

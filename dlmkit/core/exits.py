"""Exit rules and the statistics they read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch

from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.types import Mask, PerPosition, PerRow, Rows

BUILT_IN = ("step", "fraction", "sigma")
"""Statistics that the runner always offers: grid steps done by the row (from 1), that number as
a share of the grid, and sigma / alpha at the level of the row's prediction."""


class Statistic(ABC):
    """One number a position and step, in nats or as documented, averaged to one a row."""

    @abstractmethod
    def per_position(
        self, space: EmbeddingSpace, now: Prediction, before: Prediction
    ) -> PerPosition:
        """The value at every position. ``before`` is the row's previous prediction."""

    needs_before: bool = False
    """Whether the value compares two steps; it is infinite at a row's first step."""

    def __call__(
        self,
        space: EmbeddingSpace,
        now: Prediction,
        before: Prediction,
        has_before: Rows,
        generated: Mask,
    ) -> PerRow:
        """The mean over ``generated`` positions (neither given nor padding)."""
        values = self.per_position(space, now, before)
        total = torch.where(generated, values, 0.0).sum(dim=1)
        mean = total / generated.sum(dim=1).clamp(min=1)
        if self.needs_before:
            mean = torch.where(has_before, mean, torch.inf)
        return mean


class ExitCriterion(ABC):
    """A pure function of named statistics that says which rows may stop."""

    needs: tuple[str, ...]
    """Names of the statistics this rule reads, of the recipe's or of :data:`BUILT_IN`."""

    @abstractmethod
    def init(self, rows: int) -> Any:
        """The memory of rows that have taken no step: row-first, possibly empty (``()``)."""

    @abstractmethod
    def __call__(self, statistics: Mapping[str, PerRow], memory: Any) -> tuple[Rows, Any]:
        """(rows that may stop now, new memory). NaN never halts a row."""

    @abstractmethod
    def reason(self, memory: Any) -> str:
        """The rule that halted one row, in words; ``memory`` is that row's, of length 1."""

"""Exit rules and the statistics they read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch

from dlmkit import rows
from dlmkit.core.context import Buildable
from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.errors import RecipeError
from dlmkit.types import Mask, PerPosition, PerRow, Rows

BUILT_IN = ("step", "fraction", "sigma")
"""Statistics that the runner always offers: grid steps done by the row (from 1), that number as
a share of the grid, and sigma / alpha at the level of the row's prediction."""


class Statistic(Buildable, ABC):
    """One number per position and step, in nats or as documented, averaged to one per row."""

    @abstractmethod
    def per_position(
        self, space: EmbeddingSpace, now: Prediction, before: Prediction
    ) -> PerPosition:
        """The value at every position. ``before`` is the row's previous prediction."""

    needs_before: bool = False
    """Whether the value compares two steps; it is infinite at a row's first step."""
    needs_top: bool = False
    """Whether it reads the likeliest tokens, which cost a pass over the vocabulary a step."""
    settles_at: ClassVar[float] = 0.0
    """What it tends to where a text has settled: certain, and the same step after step."""
    floor: ClassVar[Mapping[torch.dtype, float]] = {}
    """Its noise floor: below this value it cannot be told from rounding in a dtype of the
    network's output. Measured; a dtype that is absent has not been."""

    def __call__(
        self,
        space: EmbeddingSpace,
        now: Prediction,
        before: Prediction,
        has_before: Rows,
        generated: Mask,
    ) -> PerRow:
        """One value per row, of its ``generated`` positions (neither given nor padding)."""
        value = self.of_row(self.per_position(space, now, before), generated)
        return torch.where(has_before, value, torch.inf) if self.needs_before else value

    def of_row(self, values: PerPosition, generated: Mask) -> PerRow:
        """The mean over ``generated`` positions, 0 if there are none."""
        total = torch.where(generated, values, 0.0).sum(dim=1)
        return total / generated.sum(dim=1).clamp(min=1)


class ExitCriterion(ABC):
    """A pure function of named statistics that says which rows may stop."""

    needs: tuple[str, ...]
    """Names of the statistics this rule reads, of the recipe's or of :data:`BUILT_IN`."""

    def init(self, rows: int) -> Any:
        """The memory of rows that have taken no step: row-first, by default empty."""
        return ()

    @abstractmethod
    def __call__(self, statistics: Mapping[str, PerRow], memory: Any) -> tuple[Rows, Any]:
        """(rows that may stop now, new memory). NaN never halts a row."""

    @abstractmethod
    def reason(self, memory: Any) -> str:
        """The rule that halted one row, in words; ``memory`` is that row's, of length 1."""

    def thresholds(self) -> Mapping[str, float]:
        """The lowest value that each statistic is compared with, in the recipe's own rule.

        Only of comparisons that rounding could decide: they are refused where they lie below
        the statistic's ``floor``. A rule made of rules gives :func:`lowest` of theirs.
        """
        return {}


def at_positions(
    rule: ExitCriterion, values: Mapping[str, PerPosition], memory: Any
) -> tuple[Mask, Any]:
    """(where ``rule`` holds, its new (B, L, ...) memory): every position is asked as a row."""
    length = values[rule.needs[0]].shape[1]
    holds, memory = rule(rows.merge(values), rows.merge(memory))
    return holds.view(-1, length), rows.part(memory, length)


class Comparison(ExitCriterion):
    """Halts a row once one statistic compares with a number, e.g. ``("entropy", "<", 0.1)``.

    Only what is smaller than a number may be decided by rounding: see :meth:`thresholds`.
    """

    def __init__(self, statistic: str, sign: Literal["<", "<=", ">="], value: float) -> None:
        self.needs = (statistic,)
        self.sign, self.value = sign, value
        self.compare = {"<": torch.lt, "<=": torch.le, ">=": torch.ge}[sign]  # false for NaN

    def __call__(self, statistics: Mapping[str, PerRow], memory: Any) -> tuple[Rows, Any]:
        return self.compare(statistics[self.needs[0]], self.value), memory

    def reason(self, memory: Any) -> str:
        return f"{self.needs[0]} {self.sign} {self.value:g}"

    def thresholds(self) -> Mapping[str, float]:
        return {self.needs[0]: self.value} if self.sign == "<" else {}


def lowest(rules: Iterable[ExitCriterion]) -> dict[str, float]:
    """The lowest threshold of any of ``rules``, by statistic."""
    least: dict[str, float] = {}
    for rule in rules:
        for name, threshold in rule.thresholds().items():
            least[name] = min(threshold, least.get(name, threshold))
    return least


def refuse_noise(
    rule: ExitCriterion, statistics: Mapping[str, Statistic], dtype: torch.dtype
) -> None:
    """Raise RecipeError for a threshold of ``rule`` below its statistic's floor in ``dtype``."""
    for name, threshold in rule.thresholds().items():
        floors = statistics[name].floor if name in statistics else {}
        floor = floors.get(dtype, 0.0)
        if threshold < floor:
            single = floors.get(torch.float32, torch.inf)
            instead = f", or sample.precision: fp32, whose floor is {single:g}"
            raise RecipeError(
                f"exit: a threshold of {threshold:g} on {name} lies below its noise floor of "
                f"{floor:g} in {str(dtype).removeprefix('torch.')}, where rounding would decide "
                f"when a text ends; take {floor:g} or more{instead if single <= threshold else ''}"
            )

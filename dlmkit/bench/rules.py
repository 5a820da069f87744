"""Exit rules as families over one threshold, and the rule that replays a decided schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlmkit.bench.subject import Subject
from dlmkit.core.exits import BUILT_IN, ExitCriterion
from dlmkit.plugin import Part
from dlmkit.recipe.short import parse_part
from dlmkit.sampling.trace import Trace
from dlmkit.types import Index, PerRow, Rows

THRESHOLD = "threshold"
"""The option that is swept: exit rules with one of this name are a family."""

CANDIDATES = 64
"""Thresholds tried of each family: quantiles of what its statistic was."""


@dataclass(frozen=True)
class Family:
    """An exit rule at every threshold. One whose threshold was given is tried at that alone."""

    name: str
    part: Part
    swept: bool

    @staticmethod
    def of(subject: Subject, text: str) -> Family:
        """The family that the short form of an exit rule means."""
        part = parse_part(text)
        component = subject.assembly.registry.find("exit", part.use).component
        swept = THRESHOLD in component.config.model_fields and THRESHOLD not in part.options
        return Family(text, part, swept)

    def at(self, threshold: float | None) -> Part:
        """The rule at ``threshold`` (None: as it is)."""
        if threshold is None:
            return self.part
        return Part(use=self.part.use, options={**self.part.options, THRESHOLD: threshold})

    def build(self, subject: Subject, threshold: float | None) -> ExitCriterion:
        """The rule itself. Raises RecipeError for options that it does not take."""
        rule: ExitCriterion = subject.build("exit", self.at(threshold))
        return rule

    def needs(self, subject: Subject) -> tuple[str, ...]:
        """The statistics that it reads."""
        return self.build(subject, 1e-3 if self.swept else None).needs

    def candidates(self, subject: Subject, trace: Trace) -> list[float | None]:
        """Thresholds at quantiles of the rule's own statistic on ``trace``, lowest first."""
        if not self.swept:
            return [None]
        names = [name for name in self.needs(subject) if name not in BUILT_IN]
        values = trace.statistics[names[0] if names else self.needs(subject)[0]].double()
        values = values[torch.isfinite(values) & (values > 0)]
        if not len(values):
            return []
        shares = torch.linspace(0.002, 0.998, CANDIDATES, dtype=torch.float64)
        return sorted({float(f"{value:.4g}") for value in torch.quantile(values, shares)})


def families(subject: Subject) -> list[str]:
    """The names of all exit rules that need nothing but a threshold."""
    found = []
    for entry in subject.assembly.registry.components("exit"):
        fields = entry.component.config.model_fields
        required = {name for name, field in fields.items() if field.is_required()}
        if THRESHOLD in fields and required <= {THRESHOLD}:
            found.append(entry.component.name)
    return found


class Scheduled(ExitCriterion):
    """Halts each text at a step decided before: for exits that only a trace knows.

    The loop asks for the memory of texts in the order of their requests; that is how each text
    gets its own step. One instance serves one run in as many slots as there are live texts.
    """

    needs = ("step",)

    def __init__(self, steps: Index) -> None:
        self._steps: Iterator[int] = iter(steps.tolist())

    def init(self, rows: int) -> Tensor:
        return torch.tensor([next(self._steps) for _ in range(rows)])

    def __call__(self, statistics: Mapping[str, PerRow], memory: Any) -> tuple[Rows, Any]:
        return statistics["step"] >= memory, memory

    def reason(self, memory: Any) -> str:
        return f"decided: step {int(memory)}"

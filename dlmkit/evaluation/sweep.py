"""One record at every value of a setting: how quality and entropy trade."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dlmkit.errors import UsageError
from dlmkit.evaluation.evaluate import Evaluated, EvaluationPlan
from dlmkit.evaluation.frontier import Frontier, axes
from dlmkit.evaluation.record import Record
from dlmkit.model import Model
from dlmkit.plugin import Part

STEPS = "steps"
GUIDANCE = {"score-temperature": "temperature", "initial-noise": "scale"}
"""Guidance that may be swept, and the option that is."""


@dataclass(frozen=True)
class Sweep:
    """A setting by its name, :data:`STEPS` or one of :data:`GUIDANCE`, and its values."""

    name: str
    values: Sequence[float]

    @staticmethod
    def parse(text: str) -> Sweep:
        """``name=A,B,...``. Raises UsageError for anything else."""
        name, _, values = text.partition("=")
        try:
            numbers = [float(value) for value in values.split(",")]
        except ValueError:
            numbers = []
        finite = all(map(math.isfinite, numbers))
        whole = name != STEPS or all(number >= 1 and number.is_integer() for number in numbers)
        if name not in (STEPS, *GUIDANCE) or len(set(numbers)) < 2 or not (finite and whole):
            raise UsageError(
                f"--frontier {text}: expected {STEPS}, {' or '.join(GUIDANCE)}, = and two or more "
                f"different numbers: steps=8,16,32 or score-temperature=0.8,0.9,1.0"
            )
        return Sweep(name, numbers)

    def at(self, value: float, model: Model, plan: EvaluationPlan) -> tuple[Model, EvaluationPlan]:
        """The model and the plan at ``value``; a guidance of its name is replaced."""
        if self.name == STEPS:
            return model, replace(plan, steps=int(value))
        use = model.assembly.registry.find("guidance", self.name).qualified
        others = [part for part in model.config.guidance if part.use != use]
        part = Part(use=use, options={GUIDANCE[self.name]: value})
        return model.with_parts(guidance=[*others, part]), plan

    def run(
        self,
        model: Model,
        plan: EvaluationPlan,
        evaluate: Callable[[Model, EvaluationPlan], Evaluated | None],
        quality: str | None,
        entropy: str | None,
    ) -> Frontier | None:
        """The frontier of ``quality`` over ``entropy``, where ``evaluate`` gives a record.

        Raises UsageError, after the first record, for a number that it does not hold.
        """
        records: list[Record] = []
        for value in self.values:
            evaluated = evaluate(*self.at(value, model, plan))
            if evaluated is not None:
                records.append(evaluated.record)
                axes(records[0], quality, entropy)
        if not records:
            return None
        return Frontier(self.name, self.values, records, *axes(records[0], quality, entropy))

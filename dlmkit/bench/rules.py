"""Exit rules as families over one threshold."""

from __future__ import annotations

from dataclasses import dataclass

from dlmkit.core.exits import BUILT_IN, ExitCriterion, refuse_noise
from dlmkit.errors import RecipeError
from dlmkit.exits.rules import TUNED, OpenRule
from dlmkit.exits.trace import Trace
from dlmkit.model import Model
from dlmkit.plugin import Part
from dlmkit.recipe.short import parse_part
from dlmkit.registry.lookup import Registry

THRESHOLD, STEPS = "threshold", "steps"
"""The option of an adaptive rule that is tuned: the first if it must be given, else the second."""


@dataclass(frozen=True)
class RuleFamily:
    """An exit rule at every threshold. One without an open number is tried as it is.

    ``name`` is what the user wrote.
    """

    name: str
    rule: OpenRule | Part
    model: Model

    @staticmethod
    def of(model: Model, text: str) -> RuleFamily:
        """The family that the short form of an exit rule means.

        Open is the number written ``tuned``, or the only required option if it is not given.
        """
        assembly = model.assembly
        if TUNED not in text and not _missing(assembly.registry, parse_part(text)):
            return RuleFamily(text, parse_part(text), model)
        rule = OpenRule.parse(text, assembly.registry, assembly.context)
        return RuleFamily(text, rule, model)

    def at(self, threshold: float | None) -> Part:
        """The rule at ``threshold`` (None: as it is)."""
        if isinstance(self.rule, Part):
            return self.rule
        assert threshold is not None
        return self.rule.at(threshold)

    def __call__(self, threshold: float | None) -> ExitCriterion:
        """The rule itself."""
        rule: ExitCriterion = self.model.assembly.build("exit", self.at(threshold))
        return rule

    @property
    def open(self) -> bool:
        """Whether there is a threshold to choose."""
        return isinstance(self.rule, OpenRule)

    @property
    def needs(self) -> tuple[str, ...]:
        """The statistics that it reads."""
        return self(self.rule.example if isinstance(self.rule, OpenRule) else None).needs

    def candidates(self, trace: Trace) -> list[float]:
        """Numbers worth trying on ``trace``, lowest first; see :class:`OpenRule`."""
        assert isinstance(self.rule, OpenRule)
        return [value for value in self.rule.candidates(trace) if self.usable(value)]

    def number(self, value: float) -> float:
        """``value`` as the rule takes it: whole numbers where it counts steps."""
        whole = isinstance(self.rule, OpenRule) and self.rule.whole
        return float(round(value)) if whole else value

    def usable(self, threshold: float) -> bool:
        """Whether the rule takes it, and it does not lie below the noise of what it reads."""
        try:
            rule = self(threshold)
            build, known = self.model.assembly.build, set(BUILT_IN)
            read = {name: build("statistic", Part(use=name)) for name in {*rule.needs} - known}
            refuse_noise(rule, read, self.model.assembly.context.dtype)
        except RecipeError:
            return False
        return True


def families(model: Model) -> list[str]:
    """The names of all exit rules that need nothing but one number, adaptive ones only."""
    names = []
    for entry in model.assembly.registry.components("exit"):
        part = Part(use=entry.component.name)
        missing = _missing(model.assembly.registry, part)
        if missing == [THRESHOLD]:
            names.append(entry.component.name)
        elif not missing and STEPS in entry.component.config.model_fields:
            names.append(f"{entry.component.name}:{STEPS}={TUNED}")
    return names


def _missing(registry: Registry, part: Part) -> list[str]:
    """The required options that ``part`` does not give."""
    fields = registry.find("exit", part.use).component.config.model_fields
    required = [field.alias or name for name, field in fields.items() if field.is_required()]
    return [name for name in required if name not in part.options]

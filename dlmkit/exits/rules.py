"""Exit rules written in one word: complete, or with one number left open for whoever tries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic.fields import FieldInfo

from dlmkit.core.context import BuildContext
from dlmkit.core.exits import BUILT_IN, ExitCriterion
from dlmkit.errors import RecipeError, UsageError
from dlmkit.exits.trace import Trace
from dlmkit.plugin import ComparedWith, Config, Part, part_of
from dlmkit.recipe.check import Checker
from dlmkit.recipe.problems import Mark, report
from dlmkit.recipe.short import parse_part
from dlmkit.recipe.tree import Node
from dlmkit.recipe.write import inline
from dlmkit.recipe.yaml import parse
from dlmkit.registry.lookup import Registry

TUNED = "tuned"
"""In a rule's options, stands where the number goes that is to be found."""

CANDIDATES = 64
"""Thresholds tried of a rule unless they are given: our choice."""


class _Holder(Config):
    """Lets a lone rule be checked like a recipe's."""

    exit: part_of("exit")  # type: ignore[valid-type]


@dataclass(frozen=True)
class OpenRule:
    """An exit rule with one option left open; called with a number, it is a rule.

    ``text`` is what the user wrote; ``part`` holds :data:`TUNED` at the open option, which is
    ``whole`` if it takes integers alone and belongs to the rule ``inner``.
    """

    text: str
    part: Part
    inner: Part
    whole: bool
    registry: Registry
    context: BuildContext

    @staticmethod
    def parse(text: str, registry: Registry, context: BuildContext) -> OpenRule:
        """``name:option=value;...`` with the word ``tuned`` for the open number.

        A rule written without it is open at its only required option. Raises UsageError if it
        is not clear which number is meant, RecipeError for a rule that nobody provides.
        """
        part = _opened(text, parse_part(text, "--rule"), registry)
        inner = _holders(part)
        if len(inner) != 1:
            raise UsageError(
                f"--rule {text}: write {TUNED!r} once, where one number is to be found"
            )
        whole = _takes_integers(inner[0], registry)
        rule = OpenRule(text, part, inner[0], whole, registry, context)
        rule.at(rule.example)  # names and options are refused here, not later
        return rule

    @property
    def example(self) -> float:
        """A number that the open option takes: its config's example, or its default.

        An option that there is not, or that takes no number, gets one all the same: the check of
        the rule then says what is wrong with it.
        """
        field = _open_field(self.inner, self.registry)
        value = (field.examples[0] if field.examples else field.default) if field else None
        return float(value) if isinstance(value, int | float) else 1.0

    def at(self, value: float) -> Part:
        """The rule with ``value`` in its open place, resolved: qualified names, every option."""
        whole = filled(self.part, self._number(value))
        return _resolved(whole, f"--rule {self.text}", self.registry)

    def __call__(self, value: float) -> ExitCriterion:
        """The rule itself, with ``value`` in its open place."""
        rule: ExitCriterion = self.registry.build("exit", self.at(value), self.context)
        return rule

    def candidates(self, trace: Trace) -> list[float]:
        """Numbers worth trying on ``trace``, lowest first.

        Whole numbers count steps: all of the grid's. Others are quantiles of the statistic that
        the open number is compared with, which are about evenly spread over the steps; those
        that the rule's options do not take are left out.
        """
        if self.whole:
            return [float(step) for step in range(1, trace.steps + 1)]
        values = trace.statistics[self.statistic].double()
        values = values[torch.isfinite(values) & (values >= 0)]
        if not len(values):
            return []
        # torch's quantile takes no more than 16 million
        shares = torch.linspace(0.002, 0.998, CANDIDATES, dtype=torch.float64)
        quantiles = torch.quantile(values[:: max(1, len(values) // 1_000_000)], shares).tolist()
        return sorted({x for value in quantiles if self._takes(x := float(f"{value:.4g}"))})

    @property
    def field(self) -> FieldInfo:
        """The open option, as its rule's config declares it."""
        field = _open_field(self.inner, self.registry)
        assert field is not None, "checked when the rule was parsed"
        return field

    @property
    def statistic(self) -> str:
        """The statistic that the open number is compared with: as its config marks it, or the
        first that the rule reads."""
        field = _open_field(self.inner, self.registry)
        marks = field.metadata if field else []
        part = filled(self.inner, self._number(self.example))
        needs = self.registry.build("exit", part, self.context).needs
        marked = [mark.statistic for mark in marks if isinstance(mark, ComparedWith)]
        first: str = [*marked, *(n for n in needs if n not in BUILT_IN), *needs][0]
        return first

    def _takes(self, value: float) -> bool:
        try:
            self.at(value)
        except RecipeError:
            return False
        return True

    def _number(self, value: float) -> int | float:
        return round(value) if self.whole else value


def closed(text: str, option: str, registry: Registry, context: BuildContext) -> ExitCriterion:
    """The exit rule that ``text``, given at ``option``, means with every number in place.

    Raises UsageError if it is not of the form ``name:option=value;...``, and RecipeError for a
    rule that nobody provides or that does not take these options.
    """
    part = _resolved(parse_part(text, option), f"{option} {text}", registry)
    rule: ExitCriterion = registry.build("exit", part, context)
    return rule


def _resolved(part: Part, place: str, registry: Registry) -> Part:
    """``part`` with qualified names and every option. Raises RecipeError, naming ``place``."""
    data = {"exit": part.model_dump(mode="json", by_alias=True)}
    mark = Mark(0, place)
    tree = parse(inline(data), lambda line, column: mark, [])
    checker = Checker(tree or Node(None, mark), registry)
    resolved = checker.config(_Holder, data)
    if checker.problems:
        raise report(checker.problems)
    return Part.model_validate(resolved["exit"])


def _opened(text: str, part: Part, registry: Registry) -> Part:
    """``part`` with :data:`TUNED` at its only required option, unless it stands somewhere."""
    if _holders(part):
        return part
    fields = registry.find("exit", part.use).component.config.model_fields
    required = [field.alias or name for name, field in fields.items() if field.is_required()]
    free = [name for name in required if name not in part.options]
    if len(free) != 1:
        raise UsageError(
            f"--rule {text}: which number is to be found? Write {TUNED!r} in its place, as in "
            "'all:rules=[{use: entropy, with: {threshold: tuned}}, ...]'"
        )
    return Part(use=part.use, options={**part.options, free[0]: TUNED})


def _holders(value: Any) -> list[Part]:
    """The parts among whose own options :data:`TUNED` stands."""
    if isinstance(value, Part):
        here = [value for option in value.options.values() if option == TUNED]
        return here + [part for option in value.options.values() for part in _holders(option)]
    if isinstance(value, dict) and "use" in value:
        return _holders(Part.model_validate(value))
    if isinstance(value, dict):
        return [part for item in value.values() for part in _holders(item)]
    return [part for item in value for part in _holders(item)] if isinstance(value, list) else []


def filled(part: Part, number: int | float) -> Part:
    """``part`` with ``number`` wherever :data:`TUNED` stands in its options."""
    return Part(use=part.use, options=_replaced(part.options, number))


def _replaced(value: Any, number: int | float) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, number) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, number) for item in value]
    return number if value == TUNED else value


def _open_field(part: Part, registry: Registry) -> FieldInfo | None:
    """The field of the option of ``part`` at which :data:`TUNED` stands; None: it has no such."""
    (option,) = (name for name, value in part.options.items() if value == TUNED)
    fields = registry.find("exit", part.use).component.config.model_fields
    return next((f for name, f in fields.items() if option in (name, f.alias)), None)


def _takes_integers(part: Part, registry: Registry) -> bool:
    schema = registry.find("exit", part.use).component.config.model_json_schema(by_alias=True)
    (name,) = (name for name, value in part.options.items() if value == TUNED)
    return bool(schema["properties"].get(name, {}).get("type") == "integer")

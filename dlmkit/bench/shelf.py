"""Every way of decoding that the shelf holds: orders, quotas, remasking and exit rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from dlmkit.bench.rules import RuleFamily, families
from dlmkit.core.quota import Quota
from dlmkit.errors import NoTextError
from dlmkit.exits.quota import DECODER, decoded, knob
from dlmkit.exits.rules import TUNED, OpenRule, filled
from dlmkit.model import Model
from dlmkit.plugin import Config, Part, PartOf
from dlmkit.registry.lookup import Entry

RANDOM, SCHEDULE, CONFIDENCE = "masked:random", "masked:schedule", "masked:confidence"
TRIES = 16
"""Runs that look for the number at which a rule takes so many evaluations: where all positions are
almost equally certain, as to a model that has learned little, it lies between two close ones."""
CLOSE = 0.02
"""How near in evaluations ends the search, as a share."""


@dataclass(frozen=True)
class Range:
    """Where a number may lie: (low, high), or above ``low`` if high is infinite; ``whole`` ones
    include both ends, from 1 on."""

    low: float
    high: float
    whole: bool = False

    @staticmethod
    def of(field: FieldInfo, whole: bool, most: int) -> Range:
        """By the bounds that an option declares; a whole number is at most ``most``."""
        low, high = 0.0, math.inf
        for bound in field.metadata:
            if isinstance(bound, Gt | Ge):
                low = float(bound.gt if isinstance(bound, Gt) else bound.ge)  # type: ignore[arg-type]
            if isinstance(bound, Lt | Le):
                high = float(bound.lt if isinstance(bound, Lt) else bound.le)  # type: ignore[arg-type]
        return Range(1.0, min(high, float(most)), True) if whole else Range(low, high)

    def at(self, u: float) -> float:
        """The setting at ``u``, any real number: rising, and fine near both ends."""
        share = 1.0 / (1.0 + math.exp(-u))
        if self.whole:
            return float(round(self.low * (self.high / self.low) ** share))
        if math.isinf(self.high):
            return self.low + math.exp(u)
        return self.low + (self.high - self.low) * share

    def search(
        self, mean: Callable[[float], float], target: float, tried: dict[float, float]
    ) -> float:
        """The setting whose ``mean`` is nearest to ``target``, by bisection: it is monotonic.

        ``tried`` holds the means that are known, by u, and is filled.
        """
        ends = -9.0, 12.0
        if ends[0] not in tried:
            tried[ends[0]] = mean(self.at(ends[0]))
        rising = tried[ends[0]] < target  # at the other end it is beyond, or nothing is
        for _ in range(TRIES):
            known = sorted(tried)
            nearest = min(known, key=lambda u: abs(tried[u] - target))
            if abs(tried[nearest] - target) <= CLOSE * target:
                break
            low = max((u for u in known if (tried[u] < target) == rising), default=ends[0])
            if low == ends[1]:
                break
            high = min((u for u in known if u > low), default=None)
            middle = 0.5 * (low + (ends[1] if high is None else high))
            if high is None and len(known) > 2:
                middle = ends[1]
            same = [tried[u] for u in known if self.at(u) == self.at(middle)]
            tried[middle] = same[0] if same else mean(self.at(middle))
        return self.at(min(tried, key=lambda u: abs(tried[u] - target)))


@dataclass(frozen=True)
class Rule:
    """A way of decoding, by its ``name`` in tables.

    The word `tuned` stands in ``quota`` or ``exit`` where the number goes that sets the pace, which
    lies on ``scale``; None: the steps of the grid set it.
    """

    name: str
    order: Part
    quota: Part
    remask: Part | None = None
    exit: Part | None = None
    scale: Range | None = None

    def of(self, model: Model, setting: float | None = None) -> Model:
        """``model`` decoded by this rule, at ``setting``. Raises RecipeError if it cannot be."""
        number: float | None = setting
        if setting is not None and self.scale is not None and self.scale.whole:
            number = round(setting)
        quota, rule = (
            part if part is None or number is None else filled(part, number)
            for part in (self.quota, self.exit)
        )
        options: dict[str, Any] = {"order": self.order, "quota": quota}
        if self.remask is not None:
            options["remask"] = self.remask
        return decoded(model, Part(use=DECODER, options=options), rule)


PLAIN = Rule("random | schedule", Part(use=RANDOM), Part(use=SCHEDULE))
"""Random order at the grid's pace, which every other rule is compared with."""


def rules(model: Model) -> Iterator[Rule]:
    """Every rule of the registry but :data:`PLAIN` and the oracle of the data.

    Every order with the schedule; every quota with the order that it is made for, once for each
    exit rule if it asks one; every remasking and every exit rule that needs one number at most,
    with random order and the schedule. Components that have named choices are there once for each.
    """
    registry = model.assembly.registry
    exits = list(_exits(model))
    for entry in registry.components("order"):
        for name, part in variants(entry):
            if part.use != RANDOM:
                yield replace(PLAIN, name=f"{name} | schedule", order=part)
    exact = oracle(model)
    for entry in registry.components("quota"):
        if exact is None or entry.qualified != exact.quota.use:
            yield from _quotas(model, entry, exits)
    for entry in registry.components("remask"):
        for name, part in variants(entry):
            yield replace(PLAIN, name=f"{PLAIN.name} | {name}", remask=part)
    for name, part, scale in exits:
        yield replace(PLAIN, name=f"{PLAIN.name} | exit {name}", exit=part, scale=scale)


def oracle(model: Model) -> Rule | None:
    """The quota that the data says is exact, if it says so: of a chain, one token a gap."""
    try:
        name = getattr(model.data, "oracle_quota", None)
    except NoTextError:
        return None
    if name is None:
        return None
    entry = model.assembly.registry.find("quota", name)
    return replace(PLAIN, name=f"random | {_short(entry)}", quota=Part(use=entry.qualified))


def variants(entry: Entry) -> Iterator[tuple[str, Part]]:
    """A component as it comes, and with every other choice of its options that name some, by name.

    Options that must be given are those of its example.
    """
    given = {
        name: field.examples[0]
        for name, field in _options(entry.component.config)
        if field.is_required() and field.examples
    }
    yield _short(entry), Part(use=entry.qualified, options=given)
    for name, choice in choices(entry.component.config):
        options = {**given, name: choice}
        yield f"{_short(entry)} {name}={choice}", Part(use=entry.qualified, options=options)


def choices(config: type[Config]) -> Iterator[tuple[str, Any]]:
    """(option, choice) for every choice but the default of every option that names some."""
    for name, field in _options(config):
        if get_origin(field.annotation) is Literal:
            for choice in get_args(field.annotation):
                if choice != field.default:
                    yield name, choice


def _options(config: type[Config]) -> Iterator[tuple[str, FieldInfo]]:
    """Every option by the name that a recipe gives it."""
    for name, field in config.model_fields.items():
        yield field.alias or name, field


def _short(entry: Entry) -> str:
    return entry.qualified.removeprefix("masked:")


def _exits(model: Model) -> Iterator[tuple[str, Part, Range | None]]:
    """(name, rule, scale) of every exit rule that needs one number at most, and of its choices."""
    registry = model.assembly.registry
    for text in families(model):
        config = registry.find("exit", text.partition(":")[0]).component.config
        joint = ";" if ":" in text else ":"
        for more in ("", *(f"{joint}{name}={choice}" for name, choice in choices(config))):
            rule = RuleFamily.of(model, text + more).rule
            if isinstance(rule, OpenRule):
                scale = Range.of(rule.field, rule.whole, model.config.length)
                yield text + more, rule.part, scale
            else:
                yield text + more, rule, None


def _quotas(
    model: Model, entry: Entry, exits: list[tuple[str, Part, Range | None]]
) -> Iterator[Rule]:
    config, registry = entry.component.config, model.assembly.registry
    for name, part in variants(entry):
        if part == PLAIN.quota:
            continue
        built: Quota = model.assembly.build("quota", part)
        order = Part(use=built.order or CONFIDENCE)
        ordered = _short(registry.find("order", order.use))
        asks, pace = _asked(config), None if built.on_grid else _pace(config)
        rule = Rule(f"{ordered} | {name}", order, part)
        if asks is not None:
            for ending, inner, scale in exits:
                nested = {asks: inner.model_dump(mode="json", by_alias=True)}
                quota = Part(use=part.use, options={**part.options, **nested})
                yield replace(rule, name=f"{rule.name} {ending}", quota=quota, scale=scale)
        elif pace is not None:
            whole = config.model_fields[pace].annotation is int
            scale = Range.of(config.model_fields[pace], whole, model.config.length)
            options = {**part.options, config.model_fields[pace].alias or pace: TUNED}
            yield replace(rule, quota=Part(use=part.use, options=options), scale=scale)
        else:
            yield rule


def _asked(config: type[Config]) -> str | None:
    """The option of a quota that holds an exit rule, if it has one."""
    holders = (name for name, field in _options(config) if PartOf("exit") in field.metadata)
    return next(holders, None)


def _pace(config: type[Config]) -> str | None:
    """The option that sets a quota's pace: its first real number, else its first whole one."""
    whole = (name for name, field in config.model_fields.items() if field.annotation is int)
    return knob(config) or next(whole, None)

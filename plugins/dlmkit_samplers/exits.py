"""Exit rules, and rules made of rules.

Comparisons are written so that NaN never halts a row. Entropy, the KL between steps and
token-switch patience are the criteria that a summary of 2305.10818 names (its reviews say three
adaptive ones). Their exact forms and constants are not public: the form here is our definition, as
is every rule that names no source. As a recipe's ``freeze`` a rule reads one position's own
statistics and settles that position alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.exits import Comparison, ExitCriterion, lowest
from dlmkit.types import PerRow, Rows
from dlmkit_samplers import configs


def fixed(config: configs.FixedStep, context: BuildContext) -> Comparison:
    """At a given step: the baseline that every adaptive rule must beat."""
    return Comparison("step", ">=", float(config.step))


def fraction(config: configs.AtFraction, context: BuildContext) -> Comparison:
    """At a share of the grid's points: `fixed` for any number of steps."""
    return Comparison("fraction", ">=", config.fraction)


def level(config: configs.AtLevel, context: BuildContext) -> Comparison:
    """At a noise level, whatever the grid: sigma / alpha of the row's prediction."""
    return Comparison("sigma", "<=", config.sigma)


def entropy(config: configs.Entropy, context: BuildContext) -> Comparison:
    """Confident: the mean entropy of the predicted tokens is low."""
    return Comparison("entropy", "<", config.threshold)


def kl(config: configs.KullbackLeibler, context: BuildContext) -> Comparison:
    """Stable: the prediction has hardly moved since the last step."""
    return Comparison("kl", "<", config.threshold)


def jeffreys(config: configs.Jeffreys, context: BuildContext) -> Comparison:
    """Stable, measured without cancellation."""
    return Comparison("jeffreys", "<", config.threshold)


def margin(config: configs.Margin, context: BuildContext) -> Comparison:
    """Confident: the mean lead of the likeliest token is high (Prophet's gap, 2508.19982)."""
    return Comparison("margin", ">=", config.threshold)


class Falling(ExitCriterion):
    """Confident enough for how far the row is: early a clear lead is asked for, late a small one.

    Prophet (2508.19982) asks for a mean gap of logits of 7.5, 5.0 and 2.5 in the thirds of the
    grid, and commits to all tokens; SchED (2512.02892) lets the threshold fall smoothly.
    """

    def __init__(self, config: configs.Falling, context: BuildContext) -> None:
        self.config, self.needs = config, (config.statistic, "fraction")

    def __call__(self, statistics: Mapping[str, PerRow], memory: Any) -> tuple[Rows, Any]:
        config, done = self.config, statistics["fraction"]
        if config.shape == "thirds":
            fallen = (3.0 * done).floor().clamp(max=2.0) / 2.0
        else:
            fallen = done if config.shape == "linear" else 0.5 - 0.5 * torch.cos(math.pi * done)
        threshold = config.threshold * (1.0 - (1.0 - config.end) * fallen)
        return statistics[config.statistic] >= threshold, memory

    def reason(self, memory: Any) -> str:
        first, last = self.config.threshold, self.config.threshold * self.config.end
        return f"{self.config.statistic} >= {first:g} falling to {last:g}"


class TokenSwitches(ExitCriterion):
    """Stable: at most s likeliest tokens of the row changed at each of the last k steps.

    Token-switch patience, as a summary of 2305.10818 calls it; our definition. Early in sampling
    nothing changes either, so alone it fires falsely: see `stable-and-confident`. The memory counts
    such steps in a row.
    """

    needs: tuple[str, ...] = ("switches",)

    def __init__(self, config: configs.TokenSwitches, context: BuildContext) -> None:
        self.most = config.most
        self.steps = config.steps

    def init(self, rows: int) -> Tensor:
        return torch.zeros(rows, dtype=torch.int64)

    def __call__(self, statistics: Mapping[str, PerRow], memory: Tensor) -> tuple[Rows, Tensor]:
        quiet = statistics["switches"] <= self.most
        held = torch.where(quiet, memory + 1, 0)
        return held >= self.steps, held

    def reason(self, memory: Tensor) -> str:
        return f"switches <= {self.most:g} for {self.steps} steps"


class StableAndConfident(ExitCriterion):
    """No likeliest token changed at the last k steps, and the mean entropy is low now.

    The stopping rule that ships with DiffusionGemma, there with k = 1 and 0.005 nats.
    """

    needs: tuple[str, ...] = ("switches", "entropy")

    def __init__(self, config: configs.StableAndConfident, context: BuildContext) -> None:
        self.steps = config.steps
        self.threshold = config.threshold

    def init(self, rows: int) -> Tensor:
        return torch.zeros(rows, dtype=torch.int64)

    def __call__(self, statistics: Mapping[str, PerRow], memory: Tensor) -> tuple[Rows, Tensor]:
        held = torch.where(statistics["switches"] == 0, memory + 1, 0)
        return (held >= self.steps) & (statistics["entropy"] < self.threshold), held

    def reason(self, memory: Tensor) -> str:
        return f"no switches for {self.steps} steps and entropy < {self.threshold:g}"

    def thresholds(self) -> Mapping[str, float]:
        """Of the comparisons that rounding could decide."""
        return {"entropy": self.threshold}


class AnyMemory(NamedTuple):
    """The rules' own memories, and the first rule that holds (their number if none does)."""

    rules: tuple[Any, ...]
    first: Tensor


class _Several(ExitCriterion):
    def __init__(self, config: configs.Rules, context: BuildContext) -> None:
        self.rules: list[ExitCriterion] = [context.build("exit", part) for part in config.rules]
        self.needs = tuple(dict.fromkeys(name for rule in self.rules for name in rule.needs))

    def ask(
        self, statistics: Mapping[str, PerRow], memories: tuple[Any, ...]
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """(bool[R, B]: which rule holds for which row, new memories)."""
        pairs = zip(self.rules, memories, strict=True)
        halts, memories = zip(*(rule(statistics, memory) for rule, memory in pairs), strict=True)
        return torch.stack(halts), memories

    def thresholds(self) -> Mapping[str, float]:
        return lowest(self.rules)


class AnyOf(_Several):
    """Halts when one rule holds; the first of those in the recipe's order is the reason."""

    def init(self, rows: int) -> AnyMemory:
        return AnyMemory(
            tuple(rule.init(rows) for rule in self.rules), torch.full((rows,), len(self.rules))
        )

    def __call__(
        self, statistics: Mapping[str, PerRow], memory: AnyMemory
    ) -> tuple[Rows, AnyMemory]:
        halts, memories = self.ask(statistics, memory.rules)
        none = torch.ones_like(halts[:1])
        return halts.any(dim=0), AnyMemory(memories, torch.cat((halts, none)).int().argmax(dim=0))

    def reason(self, memory: AnyMemory) -> str:
        first = int(memory.first)
        return self.rules[first].reason(memory.rules[first])


class AllOf(_Several):
    """Halts when every rule holds at the same step."""

    def init(self, rows: int) -> Any:
        return tuple(rule.init(rows) for rule in self.rules)

    def __call__(self, statistics: Mapping[str, PerRow], memory: Any) -> tuple[Rows, Any]:
        halts, memories = self.ask(statistics, memory)
        return halts.all(dim=0), memories

    def reason(self, memory: Any) -> str:
        pairs = zip(self.rules, memory, strict=True)
        return " and ".join(rule.reason(kept) for rule, kept in pairs)


class PatienceMemory(NamedTuple):
    """The inner rule's memory, and the steps in a row at which it has held."""

    rule: Any
    held: Tensor


class Patience(ExitCriterion):
    """Halts when the inner rule has held for several steps without a break."""

    def __init__(self, config: configs.Patience, context: BuildContext) -> None:
        self.rule: ExitCriterion = context.build("exit", config.rule)
        self.steps = config.steps
        self.needs = self.rule.needs

    def init(self, rows: int) -> PatienceMemory:
        return PatienceMemory(self.rule.init(rows), torch.zeros(rows, dtype=torch.int64))

    def __call__(
        self, statistics: Mapping[str, PerRow], memory: PatienceMemory
    ) -> tuple[Rows, PatienceMemory]:
        holds, inner = self.rule(statistics, memory.rule)
        held = rows.where(holds, memory.held + 1, torch.zeros_like(memory.held))
        return held >= self.steps, PatienceMemory(inner, held)

    def reason(self, memory: PatienceMemory) -> str:
        return f"{self.rule.reason(memory.rule)} for {self.steps} steps"

    def thresholds(self) -> Mapping[str, float]:
        return self.rule.thresholds()


class After(ExitCriterion):
    """The inner rule, which sees every step but may halt only once ``step`` steps are done."""

    def __init__(self, config: configs.After, context: BuildContext) -> None:
        self.rule: ExitCriterion = context.build("exit", config.rule)
        self.step = config.step
        self.needs = tuple(dict.fromkeys((*self.rule.needs, "step")))

    def init(self, rows: int) -> Any:
        return self.rule.init(rows)

    def __call__(self, statistics: Mapping[str, PerRow], memory: Any) -> tuple[Rows, Any]:
        holds, memory = self.rule(statistics, memory)
        return holds & (statistics["step"] >= self.step), memory

    def reason(self, memory: Any) -> str:
        return f"{self.rule.reason(memory)} after step {self.step}"

    def thresholds(self) -> Mapping[str, float]:
        return self.rule.thresholds()

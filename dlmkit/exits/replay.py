"""Exit rules replayed on a trace.

A rule that halts whole texts only truncates: up to the step at which it halts, the run with it
and the run without it are the same. So one recorded full run says exactly what every such rule,
at every threshold, would have returned and cost. Rules that freeze single positions change their
neighbours and must be run for real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.exits import ExitCriterion
from dlmkit.errors import UsageError
from dlmkit.exact.intervals import Interval, bootstrap_mean, clopper_pearson
from dlmkit.exits.trace import Trace
from dlmkit.types import Ids, Index, Rows

TOLERANCE = 0.01
"""A text disagrees when more than this share of its generated tokens differ: our definition."""

Loss = Callable[["Replay"], Float[Tensor, "B"]]
"""One number in [0, 1] a text."""


@dataclass(frozen=True)
class Replay:
    """What stopping early gives, text by text, in float64 where it is a share.

    ``steps`` and ``evaluations`` are what each text took, ``ids`` what it returned, and
    ``disagreement`` the share of its generated tokens that differ from the full run's.
    """

    steps: Index
    evaluations: Index
    ids: Ids
    disagreement: Float[Tensor, "B"]
    full_evaluations: int

    def take(self, rows: Index) -> Replay:
        """The texts ``rows`` alone."""
        return replace(
            self,
            steps=self.steps[rows],
            evaluations=self.evaluations[rows],
            ids=self.ids[rows],
            disagreement=self.disagreement[rows],
        )

    @property
    def saving(self) -> float:
        """Evaluations of the full run per evaluation made: 1 saves nothing."""
        return self.full_evaluations / float(self.evaluations.double().mean())

    def saving_interval(self) -> Interval:
        """The saving's 95 % interval, by bootstrap over texts."""
        mean = bootstrap_mean(self.evaluations.double())
        return Interval(self.full_evaluations / mean.high, self.full_evaluations / mean.low)

    @property
    def token_disagreement(self) -> float:
        """The mean over texts of the share of tokens that differ."""
        return float(self.disagreement.mean())

    def token_interval(self) -> Interval:
        """The 95 % interval of :attr:`token_disagreement`, by bootstrap over texts."""
        return bootstrap_mean(self.disagreement)

    def disagreeing(self, tolerance: float = TOLERANCE) -> Rows:
        """The texts of which more than ``tolerance`` of the tokens differ."""
        return self.disagreement > tolerance

    def row_disagreement(self, tolerance: float = TOLERANCE) -> float:
        """The share of texts that disagree."""
        return float(self.disagreeing(tolerance).double().mean())

    def row_interval(self, tolerance: float = TOLERANCE) -> Interval:
        """The exact 95 % interval of :meth:`row_disagreement`."""
        wrong = self.disagreeing(tolerance)
        return clopper_pearson(int(wrong.sum()), len(wrong))


def row_loss(tolerance: float = TOLERANCE) -> Loss:
    """1 where a text disagrees."""
    return lambda replay: replay.disagreeing(tolerance).double()


def token_loss(replay: Replay) -> Float[Tensor, "B"]:
    """The share of a text's tokens that differ."""
    return replay.disagreement


def stopped(trace: Trace, steps: Index) -> Replay:
    """Every text stopped after its number of ``steps`` (1 to N)."""
    ids = trace.ids[torch.arange(len(steps)), steps - 1]
    differs = (ids != trace.full) & trace.generated
    share = differs.sum(dim=1).double() / trace.generated.sum(dim=1).clamp(min=1)
    return Replay(steps, trace.evaluations[steps - 1], ids, share, int(trace.evaluations[-1]))


def halting_steps(trace: Trace, rule: ExitCriterion) -> Index:
    """The steps that each text takes under ``rule``: N where it never halts.

    Raises UsageError if the trace lacks a statistic that the rule reads.
    """
    check_statistics(trace, rule)
    steps = torch.full_like(trace.row, trace.steps)
    memory = rule.init(len(steps))
    for done in range(1, trace.steps):
        now = {name: trace.statistics[name][:, done - 1] for name in rule.needs}
        halts, memory = rule(now, memory)
        steps = torch.where(halts & (steps == trace.steps), done, steps)
    return steps


def check_statistics(trace: Trace, rule: ExitCriterion) -> None:
    """Raise UsageError if ``trace`` lacks a statistic that ``rule`` reads."""
    lacking = [name for name in rule.needs if name not in trace.statistics]
    if lacking:
        raise UsageError(
            f"the trace lacks what the rule reads: {', '.join(lacking)}; it holds "
            f"{', '.join(sorted(trace.statistics))}: record it again with that statistic"
        )


def drowned(trace: Trace, rule: ExitCriterion) -> list[str]:
    """The statistics that ``rule`` compares with less than their noise floor in the traced run,
    where rounding would decide; sampling refuses such a rule."""
    floors = trace.about.get("floors", {})
    return [name for name, value in rule.thresholds().items() if value < floors.get(name, 0.0)]


def replay(trace: Trace, rule: ExitCriterion) -> Replay:
    """What ``rule`` gives on ``trace``, exactly."""
    return stopped(trace, halting_steps(trace, rule))


def full(trace: Trace) -> Replay:
    """The full run itself."""
    return fixed(trace, trace.steps)


def fixed(trace: Trace, step: int) -> Replay:
    """Every text stopped after ``step`` steps."""
    return stopped(trace, torch.full_like(trace.row, step))


def oracle(trace: Trace) -> Replay:
    """Every text stopped after the first step from which no generated token changes any more."""
    differs = (trace.ids != trace.full[:, None]) & trace.generated[:, None]
    number = torch.arange(1, trace.steps + 1)
    last_wrong = torch.where(differs.any(dim=2), number, 0).amax(dim=1)
    return stopped(trace, last_wrong + 1)


def best_fixed(trace: Trace, bound: float, loss: Loss = token_loss) -> Replay:
    """The earliest fixed exit whose mean ``loss`` is at most ``bound``: chosen in hindsight."""
    candidates = (fixed(trace, step) for step in range(1, trace.steps))
    within = (stop for stop in candidates if float(loss(stop).mean()) <= bound)
    return next(within, full(trace))


def sweep(
    trace: Trace, family: Callable[[float], ExitCriterion], thresholds: Iterable[float]
) -> list[tuple[float, Replay]]:
    """``family(threshold)`` replayed at each of ``thresholds``."""
    return [(threshold, replay(trace, family(threshold))) for threshold in thresholds]

"""The early-exit comparison on one full run: thresholds from one half, figures from the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from dlmkit.bench.cases import BenchCase
from dlmkit.bench.measure import Work
from dlmkit.bench.parts import tracing
from dlmkit.bench.plan import SamplerPlan
from dlmkit.bench.rules import RuleFamily
from dlmkit.bench.verdict import Curves, fixed_steps
from dlmkit.exits.replay import Replay, oracle, replay, stopped, sweep
from dlmkit.exits.trace import Trace, TraceRecorder
from dlmkit.model import Model
from dlmkit.sampling.requests import Request
from dlmkit.types import Index

REFINED = 16
"""Thresholds tried between two neighbours where the bound is crossed."""


@dataclass(frozen=True)
class Choice:
    """A family at the threshold that was chosen, on the texts that are reported."""

    family: RuleFamily
    threshold: float | None
    replayed: Replay


@dataclass(frozen=True)
class Recorded:
    """A full run: the texts reported on, and others that thresholds are chosen on.

    ``bucket`` and ``other_bucket`` say how much of each text was given.
    """

    case: BenchCase
    report: Trace
    calibration: Trace
    bucket: Index
    other_bucket: Index
    bound: float

    @property
    def curves(self) -> Curves:
        """Disagreement by step of the reported texts."""
        return Curves.of(self.report, self.bucket)

    def oracle(self) -> Replay:
        """The earliest exits that change nothing, known only in hindsight."""
        return oracle(self.report)

    def fixed(self) -> Replay:
        """The best fixed exit within the bound, chosen on the calibration texts."""
        steps = fixed_steps(self.calibration, self.other_bucket, self.bound)
        return stopped(self.report, torch.tensor([steps[b] for b in self.bucket.tolist()]))

    def choose(self, family: RuleFamily) -> tuple[Choice | None, list[dict[str, Any]]]:
        """The threshold of fewest evaluations within the bound on the calibration texts.

        None if no threshold is. Beside it the risk at every threshold, on both halves.
        """
        if not family.open:
            return Choice(family, None, replay(self.report, family(None))), []
        tried = sweep(self.calibration, family, family.candidates(self.calibration))
        between = {family.number(value) for value in refined(tried, self.bound)}
        more = sorted(v for v in between - {v for v, _ in tried} if family.usable(v))
        tried = sorted(tried + sweep(self.calibration, family, more), key=lambda pair: pair[0])
        risk = [
            {
                "threshold": threshold,
                "evaluations": _mean(replayed),
                "calibration": replayed.token_disagreement,
                "report": replay(self.report, family(threshold)).token_disagreement,
            }
            for threshold, replayed in tried
        ]
        within = [
            (_mean(replayed), threshold)
            for threshold, replayed in tried
            if replayed.token_disagreement <= self.bound
        ]
        if not within:
            return None, risk
        _, threshold = min(within)
        return Choice(family, threshold, replay(self.report, family(threshold))), risk


def _mean(replayed: Replay) -> float:
    return float(replayed.evaluations.double().mean())


def refined(tried: Sequence[tuple[float, Replay]], bound: float) -> list[float]:
    """More thresholds between neighbours where one keeps the bound and the other does not."""
    more: list[float] = []
    for (low, before), (high, after) in pairwise(tried):
        if (before.token_disagreement <= bound) != (after.token_disagreement <= bound):
            shares = torch.linspace(0.0, 1.0, REFINED + 2, dtype=torch.float64)[1:-1]
            more += [float(f"{low * (high / low) ** share:.4g}") for share in shares.tolist()]
    return more


def record(
    model: Model,
    case: BenchCase,
    chosen: Sequence[RuleFamily],
    plan: SamplerPlan,
    requests: Sequence[Request],
    bucket: Index,
) -> Recorded:
    """Run ``case`` to its end once, with every statistic that ``chosen`` read.

    The first ``plan.texts`` of ``requests`` are reported on, the rest calibrate.
    """
    needs = {name for family in chosen for name in family.needs}
    parts = tracing(model, case, needs)
    length = model.config.length
    recorder = TraceRecorder(parts, requests, steps=case.steps, length=length)
    work = Work(parts, requests, plan.seed, case.steps, case.batch_size, length)
    for _ in recorder.watch(work.stream()):
        pass
    trace = recorder.trace()
    first = torch.arange(len(requests)) < plan.texts
    halves = trace.take(first), trace.take(~first)
    return Recorded(case, *halves, bucket[first], bucket[~first], plan.bound)

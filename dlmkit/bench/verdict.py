"""What an exit rule saves over the best fixed exit at equal disagreement, with its interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.bench.cases import titled
from dlmkit.exact.intervals import Interval, percentile, resampled_shares
from dlmkit.exits.replay import Replay, best_fixed, fixed
from dlmkit.exits.trace import Trace
from dlmkit.types import Index


@dataclass(frozen=True)
class Curves:
    """Of B texts, the share of differing tokens if stopped after each of N steps, and its cost.

    ``bucket`` groups texts of equal difficulty: a fixed exit is tuned in each.
    """

    disagreement: Float[Tensor, "B N"]
    cost: Float[Tensor, "N"]
    bucket: Index

    @staticmethod
    def of(trace: Trace, bucket: Index) -> Curves:
        """From a full run."""
        shares = [fixed(trace, step).disagreement for step in range(1, trace.steps + 1)]
        return Curves(torch.stack(shares, dim=1), trace.evaluations.double(), bucket)

    def groups(self) -> Iterator[Tensor]:
        """The texts of each bucket, as a mask."""
        return (self.bucket == value for value in self.bucket.unique())


def fixed_cost(
    curve: Float[Tensor, "R N"], cost: Float[Tensor, "N"], bound: Float[Tensor, "R"]
) -> Float[Tensor, "R"]:
    """Evaluations of the fixed exit whose mean disagreement is exactly ``bound``.

    The earliest step from which on the disagreement stays within the bound, mixed with the step
    before it (some texts at one, some at the other) so that the bound is met and not undercut.
    """
    within = (curve <= bound[:, None] + 1e-12).flip(1).cumprod(dim=1).flip(1)
    last = curve.shape[1] - 1
    step = (last + 1 - within.sum(dim=1)).clamp(max=last)
    before = (step - 1).clamp(min=0)
    here, there = (curve.gather(1, k[:, None])[:, 0] for k in (step, before))
    share = torch.where(there > bound, (bound - here) / (there - here).clamp(min=1e-12), 0.0)
    return cost[step] - share.clamp(0.0, 1.0) * (cost[step] - cost[before])


@dataclass(frozen=True)
class ExitVerdict:
    """``saving`` is 1 - evaluations / those of the best fixed exit of the same disagreement.

    ``interval`` holds with 95 % confidence for all ``rules`` that were judged together.
    """

    rule: str
    threshold: float | None
    evaluations: float
    fixed_evaluations: float
    saving: float
    interval: Interval
    disagreement: float
    of_oracle: float
    rules: int

    @property
    def gain(self) -> bool:
        """Whether the whole interval lies above 0 as it is printed, in tenths of a percent."""
        return round(100.0 * self.interval.low, 1) > 0.0


def judge(
    rule: str,
    threshold: float | None,
    replayed: Replay,
    oracle: Replay,
    curves: Curves,
    rules: int = 1,
    seed: int = 0,
) -> ExitVerdict:
    """The verdict on ``replayed``, one of ``rules`` judged together; texts are resampled in pairs.

    In buckets every fixed exit is held to the rule's own mean disagreement.
    """
    weights = resampled_shares(len(replayed.steps), seed=seed)
    spent, wrong = replayed.evaluations.double(), replayed.disagreement
    cost = torch.zeros(len(weights), dtype=torch.float64)
    bound = weights @ wrong
    for texts in curves.groups():
        share = weights[:, texts].sum(dim=1)
        curve = weights[:, texts] @ curves.disagreement[texts] / share.clamp(min=1e-12)[:, None]
        cost += share * fixed_cost(curve, curves.cost, bound)
    savings = 1.0 - (weights @ spent) / cost
    return ExitVerdict(
        rule=rule,
        threshold=threshold,
        evaluations=float(spent.mean()),
        fixed_evaluations=float(cost[0]),
        saving=float(savings[0]),
        interval=percentile(savings[1:], 1.0 - 0.05 / rules),
        disagreement=float(wrong.mean()),
        of_oracle=replayed.saving / oracle.saving,
        rules=rules,
    )


def fixed_steps(calibration: Trace, bucket: Index, bound: float) -> dict[int, int]:
    """The best fixed exit of each bucket: its step, chosen on ``calibration``."""
    return {
        int(value): int(best_fixed(calibration.take(bucket == value), bound).steps[0])
        for value in bucket.unique()
    }


def sentence(verdict: ExitVerdict, regridded: tuple[int, float] | None = None) -> str:
    """One plain line. ``regridded``: steps of a coarser full run, and its disagreement."""
    # a sum with 0 has no negative zero
    saving, low, high = (round(100.0 * v, 1) + 0.0 for v in (verdict.saving, *verdict.interval))
    rule = titled(verdict.rule, verdict.threshold)
    over = (
        "the best fixed exit at equal disagreement "
        f"({100 * verdict.disagreement:.2f} % of tokens): "
        f"{verdict.evaluations:.2f} evaluations against {verdict.fixed_evaluations:.2f}, "
        f"{saving:.1f} % saved, 95 % interval {low:.1f} to {high:.1f}"
    )
    line = f"{rule}: {'gain' if verdict.gain else 'no gain'} over {over}"
    if regridded is None:
        return line
    return f"{line}; a full run of {regridded[0]} steps differs in {100 * regridded[1]:.2f} %"

"""What a decoder saves over random order on a coarser grid, with its interval over texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.exact.intervals import Interval, percentile, resampled_shares


@dataclass(frozen=True)
class Found:
    """One run: of every text its evaluations, nats per token, entropy and ids."""

    evaluations: Float[Tensor, "B"]
    nats: Float[Tensor, "B"]
    entropy: Float[Tensor, "B"]
    quality: Mapping[str, float]


@dataclass(frozen=True)
class DecoderRow:
    """A rule at one mean number of evaluations. ``saving`` is 1 - evaluations / those of random
    order on the coarser grid whose texts have the same likelihood gap."""

    rule: str
    target: int
    setting: float | None
    evaluations: float
    gap: float
    gap_interval: Interval
    entropy: float
    entropy_interval: Interval
    saving: float | None
    saving_interval: Interval | None
    quality: Mapping[str, float]


@dataclass(frozen=True)
class DecoderVerdict:
    """``saving`` over the coarser grid in the geometric mean over the numbers of evaluations, its
    interval holding for all ``rules`` together.

    ``less_varied`` are mean evaluations at which texts have surely less entropy than the model's
    own, and than the coarser grid's at as many evaluations.
    """

    rule: str
    saving: float
    interval: Interval
    less_varied: tuple[float, ...]
    rules: int

    @property
    def gain(self) -> bool:
        """Whether it saves evaluations for certain, and not by writing less varied texts."""
        return round(100.0 * self.interval.low, 1) > 0.0 and not self.less_varied

    @property
    def sentence(self) -> str:
        """One plain line."""
        saving, low, high = (round(100.0 * v, 1) + 0.0 for v in (self.saving, *self.interval))
        numbers = f"{saving:.1f} % of evaluations, 95 % interval {low:.1f} to {high:.1f}"
        if self.gain:
            return f"{self.rule}: worth {numbers} over random order on a coarser grid"
        where = ", ".join(f"{spent:.1f}" for spent in self.less_varied)
        less = f"; less varied texts at {where} evaluations" if where else ""
        return f"{self.rule}: no gain over random order on a coarser grid ({numbers}{less})"


@dataclass(frozen=True)
class Curve:
    """Evaluations of random order against its likelihood gap and entropy, and how they vary over
    texts."""

    evaluations: Float[Tensor, "N"]
    gaps: Float[Tensor, "R N"]
    entropies: Float[Tensor, "R N"]

    @staticmethod
    def of(runs: Mapping[int, Found], reference: Found) -> Curve:
        """From the runs by their steps. Row 0 is of all texts, the others of resampled ones."""
        per_text = torch.stack([run.nats - reference.nats for run in runs.values()], dim=1)
        spent = torch.stack([run.evaluations.mean() for run in runs.values()])
        weights = resampled_shares(len(per_text))
        # more evaluations are never worse: what says so is noise
        gaps = (weights @ per_text).flip(1).cummax(dim=1).values.flip(1)
        entropies = weights @ torch.stack([run.entropy for run in runs.values()], dim=1)
        return Curve(spent, gaps.clamp(min=0.0), entropies)

    def equal(self, gap: Float[Tensor, "R"]) -> Float[Tensor, "R"]:
        """Evaluations at which random order has the same gap, interpolated in its logarithm."""
        log_cost = self.evaluations.log()
        cost = torch.full_like(gap, float(log_cost[-1]))
        for k in range(len(log_cost) - 1):
            high, low = self.gaps[:, k], self.gaps[:, k + 1]
            share = ((high - gap) / (high - low).clamp(min=1e-12)).clamp(0.0, 1.0)
            inside = (gap <= high) & (gap >= low)
            here = log_cost[k] + share * (log_cost[k + 1] - log_cost[k])
            cost = torch.where(inside, torch.minimum(cost, here), cost)
        return torch.where(gap > self.gaps[:, 0], log_cost[0], cost).exp()

    def entropy(self, spent: float) -> Float[Tensor, "R"]:
        """Of texts of random order in ``spent`` evaluations, interpolated in their logarithm."""
        log_cost = self.evaluations.log()
        at = torch.tensor(spent, dtype=log_cost.dtype).log().clamp(log_cost[0], log_cost[-1])
        k = int(torch.searchsorted(log_cost, at).clamp(1, len(log_cost) - 1))
        share = (at - log_cost[k - 1]) / (log_cost[k] - log_cost[k - 1])
        return torch.lerp(self.entropies[:, k - 1], self.entropies[:, k], share)

    def _less_varied(self, run: Found, reference: Found) -> bool:
        """Whether texts of ``run`` surely have less entropy than both the model's own and random
        order's in as many evaluations: fewer evaluations alone make texts of another entropy."""
        weights, spent = resampled_shares(len(run.entropy)), float(run.evaluations.mean())
        entropy = weights @ run.entropy
        others = weights @ reference.entropy, self.entropy(spent)
        return all(percentile((entropy - other)[1:], 0.95).high < -0.01 for other in others)

    def _ratio(self, run: Found, reference: Found) -> Float[Tensor, "R"]:
        """log of evaluations over those of the coarser grid at the same gap."""
        weights = resampled_shares(len(run.nats))
        gap = (weights @ (run.nats - reference.nats)).clamp(min=0.0)
        return (weights @ run.evaluations).log() - self.equal(gap).log()

    def row(
        self, name: str, target: int, setting: float | None, run: Found, reference: Found
    ) -> DecoderRow:
        """The measured row of the rule ``name``."""
        saving = 1.0 - self._ratio(run, reference).exp()
        row = plain_row(name, target, setting, run, reference)
        interval = percentile(saving[1:], 0.95)
        return replace(row, saving=float(saving[0]), saving_interval=interval)

    def verdict(
        self, name: str, measured: Sequence[Found], reference: Found, rules: int
    ) -> DecoderVerdict:
        """Over all runs of one rule."""
        ratios = torch.stack([self._ratio(run, reference) for run in measured]).mean(dim=0)
        saving = 1.0 - ratios.exp()
        interval = percentile(saving[1:], 1.0 - 0.05 / rules)
        less_varied = {
            float(run.evaluations.mean()) for run in measured if self._less_varied(run, reference)
        }
        return DecoderVerdict(name, float(saving[0]), interval, tuple(sorted(less_varied)), rules)


def plain_row(
    name: str, target: int, setting: float | None, run: Found, reference: Found
) -> DecoderRow:
    """A row that is compared with nothing."""
    weights = resampled_shares(len(run.nats))
    gaps, entropies = weights @ (run.nats - reference.nats), weights @ run.entropy
    return DecoderRow(
        rule=name,
        target=target,
        setting=setting,
        evaluations=float(run.evaluations.mean()),
        gap=float(gaps[0]),
        gap_interval=percentile(gaps[1:], 0.95),
        entropy=float(entropies[0]),
        entropy_interval=percentile(entropies[1:], 0.95),
        saving=None,
        saving_interval=None,
        quality=run.quality,
    )


def entropy(ids: Sequence[Sequence[int]]) -> Float[Tensor, "B"]:
    """The entropy of the tokens of each text by how often it has them, in nats."""
    entropies = []
    for row in ids:
        share = torch.tensor(row).unique(return_counts=True)[1].double() / len(row)
        entropies.append(-(share * share.log()).sum())
    return torch.stack(entropies)

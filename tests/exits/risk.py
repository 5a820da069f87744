"""A test-bed of calibration: thresholds whose true risk is known.

Text i stops agreeing with its full run at a boldness T_i of its own, with P(T_i <= t) known, and
then all of its tokens are wrong together: the tokens of one text are not independent, which is
what an exit rule that fires falsely looks like. Bolder thresholds also save more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.exact.intervals import binomial_cdf
from dlmkit.exits.calibrate import (
    PValue,
    exact_binomial,
    hoeffding_bentkus,
    passing,
    sequence,
)


@dataclass(frozen=True)
class RiskCurve:
    """``size`` thresholds whose risk rises from ``low`` to ``high`` by equal ratios.

    ``spread`` is how much of a failed text is wrong: 1 all of it; below 1, a share drawn
    uniformly between ``spread`` and 1, so that the expected share is the risk times its mean.
    """

    low: float = 0.002
    high: float = 0.2
    size: int = 40
    spread: float = 1.0

    @property
    def risk(self) -> Float[Tensor, "K"]:
        """The true expected loss at every threshold."""
        ends = math.log(self.low), math.log(self.high)
        failing = torch.linspace(*ends, self.size, dtype=torch.float64).exp()
        return failing * (1.0 + self.spread) / 2.0

    def losses(self, texts: int, generator: torch.Generator) -> Float[Tensor, "B K"]:
        """The losses of ``texts`` texts at every threshold."""
        u = torch.rand((texts, 2), dtype=torch.float64, generator=generator)
        share = self.spread + (1.0 - self.spread) * u[:, 1]
        failing = self.risk * 2.0 / (1.0 + self.spread)
        return (u[:, :1] < failing) * share[:, None]


Picker = Callable[[Tensor, float, float], int | None]
"""(losses [B, K], epsilon, delta) -> the threshold chosen, if any."""


def _tested(test: PValue) -> Picker:
    """Fixed-sequence testing; a quarter of the texts orders the thresholds."""

    def pick(losses: Tensor, epsilon: float, delta: float) -> int | None:
        order, rest = _ordered(losses)
        return max(passing(order, lambda k: test(rest[:, k], epsilon), delta), default=None)

    return pick


def _ordered(losses: Tensor) -> tuple[list[int], Tensor]:
    """(the order of the thresholds by a quarter of the texts, the losses of the others)."""
    first = len(losses) // 4
    cost = [-float(k) for k in range(losses.shape[1])]
    return sequence(losses[:first].mean(dim=0).tolist(), cost), losses[first:]


def _best_empirical(losses: Tensor, epsilon: float, delta: float) -> int | None:
    """The boldest threshold whose mean loss is at most epsilon: no test at all."""
    within = (losses.mean(dim=0) <= epsilon).nonzero()[:, 0].tolist()
    return max(within, default=None)


def _wrong_tail(losses: Tensor, epsilon: float, delta: float) -> int | None:
    """Goes on until the losses are significantly above epsilon, rather than below."""
    order, rest = _ordered(losses)
    above = lambda k: 1.0 - binomial_cdf(int(rest[:, k].sum()) - 1, len(rest), epsilon)  # noqa: E731
    return max(passing(order, lambda k: float(above(k) <= delta), delta), default=None)


def _by_token(losses: Float[Tensor, "B"], epsilon: float) -> float:
    """The p-value of n * L tokens, as if they were independent."""
    wrong = int((losses * TOKENS).round().sum())
    return binomial_cdf(wrong, len(losses) * TOKENS, epsilon)


TOKENS = 64
"""Tokens of a text, for the variant that takes them for trials."""

PICKERS: Mapping[str, Picker] = {
    "exact binomial": _tested(exact_binomial),
    "Hoeffding-Bentkus": _tested(hoeffding_bentkus),
    "best empirical": _best_empirical,
    "wrong tail": _wrong_tail,
    "tokens as trials": _tested(_by_token),
}
"""Ways to choose a threshold: two that hold their promise, and three that do not."""


@dataclass(frozen=True)
class Outcome:
    """Of ``runs`` recalibrations: how many chose a threshold whose true risk exceeds epsilon, how
    many chose none, and the mean true risk of what was chosen (0 where nothing was)."""

    runs: int
    violations: int
    none: int
    mean_risk: float


def simulate(
    curve: RiskCurve,
    pick: Picker,
    *,
    texts: int,
    epsilon: float,
    delta: float,
    runs: int = 500,
    seed: int = 0,
) -> Outcome:
    """Recalibrate ``runs`` times on fresh texts and look at the true risk of what was chosen."""
    generator = torch.Generator().manual_seed(seed)
    risk = curve.risk.tolist()
    chosen = [pick(curve.losses(texts, generator), epsilon, delta) for _ in range(runs)]
    truth = [0.0 if k is None else risk[k] for k in chosen]
    violations = sum(value > epsilon for value in truth)
    return Outcome(runs, violations, chosen.count(None), sum(truth) / runs)


def most_violations(runs: int, delta: float, errors: float = 3.0) -> float:
    """delta's share of ``runs`` plus ``errors`` Monte-Carlo standard errors."""
    return runs * delta + errors * math.sqrt(runs * delta * (1.0 - delta))

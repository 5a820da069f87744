"""Thresholds with a guarantee: fixed-sequence Learn-then-Test over texts.

Angelopoulos et al. (2110.01052): each threshold's hypothesis "its expected loss exceeds epsilon"
is tested by an exact p-value, in an order fixed on other texts, until the first that is not
rejected at level delta. With probability 1 - delta over the texts, every threshold that passed
has an expected loss of at most epsilon, whether or not the loss is monotone in the threshold.
Choosing among K rules tests each at delta / K.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.exits import ExitCriterion
from dlmkit.errors import UsageError
from dlmkit.exact.intervals import binomial_cdf
from dlmkit.exits.replay import TOLERANCE, Loss, Replay, replay, row_loss, token_loss
from dlmkit.exits.trace import Trace
from dlmkit.noise import Noise

SPLIT = 0x0DDE
"""Domain of the draw that splits a trace's texts."""

PValue = Callable[[Float[Tensor, "B"], float], float]
"""(losses of the texts, epsilon) -> p-value of "the expected loss exceeds epsilon"."""

Family = Callable[[float], ExitCriterion]


def exact_binomial(losses: Float[Tensor, "B"], epsilon: float) -> float:
    """P(Binomial(n, epsilon) <= failures), for losses of 0 and 1."""
    return binomial_cdf(int(losses.sum()), len(losses), epsilon)


def hoeffding_bentkus(losses: Float[Tensor, "B"], epsilon: float) -> float:
    """The smaller of Hoeffding's and Bentkus' bounds, for losses in [0, 1] (Bates et al.,
    2101.02703, section 3.1)."""
    n, mean = len(losses), float(losses.mean())
    if mean >= epsilon:
        return 1.0
    bentkus = math.e * binomial_cdf(math.ceil(n * mean - 1e-9), n, epsilon)
    return min(1.0, math.exp(-n * _divergence(mean, epsilon)), bentkus)


def _divergence(a: float, b: float) -> float:
    """KL between coins of probabilities a < b, in nats."""
    first = a * math.log(a / b) if a > 0.0 else 0.0
    return first + (1.0 - a) * math.log((1.0 - a) / (1.0 - b))


@dataclass(frozen=True)
class LossKind:
    """A loss per text and the p-value that is valid for it."""

    of: Callable[[float], Loss]
    p_value: PValue


LOSSES: Mapping[str, LossKind] = {
    "row": LossKind(row_loss, exact_binomial),
    "fraction": LossKind(lambda tolerance: token_loss, hoeffding_bentkus),
}
"""``row``: 1 where more than the tolerance of a text's tokens differ from the full run's.
``fraction``: the share of its tokens that differ."""


def texts_needed(epsilon: float, delta: float, rate: float = 0.0) -> int | None:
    """The fewest texts that could pass if a share ``rate`` of them fails; None: no number can.

    Failures are whole texts, rounded up, so more texts pass more easily only while their failures
    stay the same in number.
    """
    if rate >= epsilon:
        return None

    def passes(failures: int, texts: int) -> bool:
        return binomial_cdf(failures, texts, epsilon) <= delta

    def most(failures: int) -> int:
        """How many texts have no more failures than these."""
        return math.floor((failures + 1e-9) / rate)

    if rate == 0.0:
        return _first(lambda texts: passes(0, texts), 1)
    enough = _first(lambda failures: passes(failures, most(failures)), 1)
    # rounding down to whole texts may let fewer failures pass than the search found: at most as
    # many as it takes to make up for a text, by the rates of both in the exponent of the tail
    slack = 8 + math.ceil(8.0 * rate**2 / (epsilon - rate))
    fewer = range(max(1, enough - slack), enough + 1)
    failures = next(k for k in fewer if passes(k, most(k)))
    return _first(lambda texts: passes(failures, texts), most(failures - 1) + 1)


def _first(holds: Callable[[int], bool], start: int) -> int:
    """The least number from ``start`` that ``holds``, which all greater ones do, by bisection."""
    low, high = start - 1, start
    while not holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def split(trace: Trace, share: float) -> tuple[Trace, Trace]:
    """(texts that order the thresholds, texts that test them), drawn by the texts' indices."""
    draw = Noise.keyed(SPLIT, trace.row, 0).uniform(0, (), torch.float64)
    order = draw.argsort()
    count = round(share * len(order))
    return trace.take(order[:count].sort().values), trace.take(order[count:].sort().values)


def sequence(risk: Sequence[float], cost: Sequence[float]) -> list[int]:
    """The order in which thresholds are tested: from cautious to bold.

    By rising risk, and among equals by falling cost; those that another beats in both are left
    out, since a test of them could only end the sequence early.
    """
    places = range(len(risk))
    kept = [i for i in places if not any(risk[j] < risk[i] and cost[j] <= cost[i] for j in places)]
    return sorted(kept, key=lambda i: (risk[i], -cost[i]))


def passing(order: Sequence[int], p_value: Callable[[int], float], delta: float) -> list[int]:
    """The head of ``order`` before the first p-value above ``delta``."""
    passed = []
    for place in order:
        if p_value(place) > delta:
            break
        passed.append(place)
    return passed


@dataclass(frozen=True)
class Promise:
    """With probability 1 - ``delta`` over the texts, their expected loss is at most ``epsilon``.

    ``loss`` is one of :data:`LOSSES`, and ``tolerance`` the share of tokens that it lets differ.
    """

    epsilon: float = 0.05
    delta: float = 0.05
    loss: str = "row"
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Calibrated:
    """What became of one rule. ``threshold`` is None if none passed, and ``tested`` then is the
    replay of the first one tried (None if none saved anything); else of the chosen one."""

    name: str
    threshold: float | None
    tested: Replay | None
    mean_loss: float
    p_value: float


def calibrate(
    name: str,
    family: Family,
    thresholds: Sequence[float],
    ordering: Trace,
    testing: Trace,
    promise: Promise,
) -> Calibrated:
    """The boldest of ``thresholds`` that keeps ``promise``.

    Only those that save something on ``ordering`` are tested. Raises UsageError if the traces
    lack a statistic that the rule reads.
    """
    return choose(
        name,
        thresholds,
        lambda t: replay(ordering, family(t)),
        lambda t: replay(testing, family(t)),
        promise,
    )


def choose(
    name: str,
    thresholds: Sequence[float],
    ordering: Callable[[float], Replay],
    testing: Callable[[float], Replay],
    promise: Promise,
) -> Calibrated:
    """:func:`calibrate` of whatever gives texts at a threshold: on those that order the
    thresholds, and on those that test them."""
    kind = LOSSES[promise.loss]
    of = kind.of(promise.tolerance)
    tried = [(t, ordering(t)) for t in thresholds]
    saving = [(t, r) for t, r in tried if r.saving > 1.0]
    risk = [float(of(r).mean()) for _, r in saving]
    cost = [float(r.evaluations.double().mean()) for _, r in saving]
    order = sequence(risk, cost)
    tested = {i: testing(saving[i][0]) for i in order}
    p_value = lambda i: kind.p_value(of(tested[i]), promise.epsilon)  # noqa: E731
    passed = passing(order, p_value, promise.delta)
    if not order:
        return Calibrated(name, None, None, math.nan, math.nan)
    chosen = min(passed, key=lambda i: cost[i]) if passed else order[0]
    threshold = saving[chosen][0] if passed else None
    replayed = tested[chosen]
    return Calibrated(name, threshold, replayed, float(of(replayed).mean()), p_value(chosen))


def check_levels(epsilon: float, delta: float, testing: int, rules: int) -> None:
    """Raise UsageError unless the levels lie in (0, 1) and ``testing`` texts can pass at all."""
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if not 0.0 < value < 1.0:
            raise UsageError(f"--{name} {value:g}: expected a number between 0 and 1, not at them")
    least = texts_needed(epsilon, delta / rules) or 0
    if testing < least:
        among = f" for one of {rules} rules" if rules > 1 else ""
        raise UsageError(
            f"{testing} texts are left to test thresholds on; at epsilon {epsilon:g} and delta "
            f"{delta:g}{among} it takes {least} even if none of them fails: record more texts"
        )

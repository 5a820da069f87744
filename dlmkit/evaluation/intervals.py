"""Exact and resampled uncertainty over texts: tokens of one text are not independent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for X of n trials of probability ``p``, summed term by term in float64."""
    if k < 0:
        return 0.0
    if k >= n or p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 0.0
    i = torch.arange(k + 1, dtype=torch.float64)
    ways = math.lgamma(n + 1) - torch.lgamma(i + 1) - torch.lgamma(n - i + 1)
    terms = ways + i * math.log(p) + (n - i) * math.log1p(-p)
    return min(1.0, math.exp(float(terms.logsumexp(dim=0))))


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """The exact interval of a probability of which ``k`` of ``n`` independent trials came true."""
    tail = (1.0 - level) / 2.0
    low = 0.0 if k == 0 else _crossing(lambda p: 1.0 - binomial_cdf(k - 1, n, p) < tail)
    high = 1.0 if k == n else _crossing(lambda p: binomial_cdf(k, n, p) > tail)
    return Interval(low, high)


def _crossing(below: Callable[[float], bool]) -> float:
    """Where ``below`` turns from true to false on [0, 1], by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2.0


def resampled_means(
    values: Float[Tensor, "B K"], draws: int = 2000, seed: int = 0
) -> Float[Tensor, "draws K"]:
    """Means of K paired values a text over bootstrap draws of the texts, in float64."""
    chosen = resamplings(len(values), draws, seed)
    return torch.stack([values.double()[rows].mean(dim=0) for rows in chosen])


def resamplings(count: int, draws: int, seed: int = 0) -> Iterator[Int[Tensor, "B"]]:
    """``draws`` bootstrap samples of ``count`` texts, each as ``count`` indices."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        yield torch.randint(count, (count,), generator=generator)


def percentile(draws: Float[Tensor, "draws"], level: float = 0.95) -> Interval:
    """The percentile interval of bootstrap ``draws`` of a number."""
    tail = (1.0 - level) / 2.0
    ends = torch.quantile(draws.double(), torch.tensor([tail, 1.0 - tail], dtype=torch.float64))
    return Interval(float(ends[0]), float(ends[1]))


def bootstrap_mean(values: Float[Tensor, "B"], level: float = 0.95, seed: int = 0) -> Interval:
    """The percentile interval of the mean of one value a text."""
    return percentile(resampled_means(values[:, None], seed=seed)[:, 0], level)

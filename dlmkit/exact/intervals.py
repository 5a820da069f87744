"""Exact and resampled uncertainty over texts: tokens of one text are not independent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

RESAMPLES = 2000
"""Bootstrap samples of an interval."""


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


@cache
def student(freedom: int, level: float = 0.95) -> float:
    """How many standard errors a two-sided interval of ``level`` reaches, by Student's t.

    By the finite series for a whole number of degrees of ``freedom`` (Abramowitz and Stegun 1964,
    26.7.3 and 26.7.4) in the angle whose tangent is t / sqrt(freedom), and bisection.
    """
    odd = freedom % 2

    def within(share: float) -> float:
        angle = share * math.pi / 2.0
        term, total = math.cos(angle) ** odd, 0.0
        for k in range(1 + odd, freedom, 2):
            total += term
            term *= math.cos(angle) ** 2 * k / (k + 1)
        series = math.sin(angle) * total
        return 2.0 / math.pi * (angle + series) if odd else series

    return math.sqrt(freedom) * math.tan(_crossing(lambda p: within(p) < level) * math.pi / 2.0)


def left_out(count: int, parts: int) -> Iterator[Int[Tensor, "..."]]:
    """The indices of the texts that remain as each part of ``count`` texts is left out.

    Text i is in part i mod ``parts``; there are no more parts than texts, and none for one text.
    """
    index, parts = torch.arange(count), min(parts, count)
    for part in range(parts if parts > 1 else 0):
        yield index[index % parts != part]


class Jackknife(NamedTuple):
    """A standard error, and the interval made of it."""

    error: float
    interval: Interval


def jackknife(value: float, without: Sequence[float], count: int, level: float = 0.95) -> Jackknife:
    """Of a ``value`` of ``count`` texts, which is ``without[i]`` with part i left out.

    The delete-a-group jackknife for parts of unequal sizes (Busing, Meijer and van der Leeden
    1999, equation 9); Student's t with one degree of freedom less than there are parts. It never
    counts a text twice, so it holds for what depends on repeats and on the amount of text, such
    as the share of n-grams that are distinct: a bootstrap sample has a third of its texts twice.
    It needs a statistic that one part moves little, which a clustering of texts is not.
    """
    parts = len(without)
    sizes = torch.tensor([len(range(part, count, parts)) for part in range(parts)]).double()
    weight = count / sizes
    pseudo = weight * value - (weight - 1.0) * torch.tensor(without, dtype=torch.float64)
    error = float(((pseudo - pseudo.mean()).square() / (weight - 1.0)).mean().sqrt())
    reach = student(parts - 1, level) * error
    return Jackknife(error, Interval(value - reach, value + reach))


def resampled_means(
    values: Float[Tensor, "B K"], draws: int = RESAMPLES, seed: int = 0
) -> Float[Tensor, "draws K"]:
    """Means of K paired values per text over bootstrap draws of the texts, in float64."""
    chosen = resamplings(len(values), draws, seed)
    return torch.stack([values.double()[rows].mean(dim=0) for rows in chosen])


def resamplings(count: int, draws: int, seed: int = 0) -> Iterator[Int[Tensor, "B"]]:
    """``draws`` bootstrap samples of ``count`` texts, each as ``count`` indices."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        yield torch.randint(count, (count,), generator=generator)


@lru_cache(maxsize=4)
def resampled_shares(count: int, draws: int = RESAMPLES, seed: int = 0) -> Float[Tensor, "R B"]:
    """Shares of ``count`` texts: all equal in the first row, then those of each bootstrap sample.

    The same in every call, so that what has the same texts is compared text by text.
    """
    drawn = torch.stack(list(resamplings(count, draws, seed)))
    counts = torch.zeros(draws, count, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return torch.cat((torch.ones(1, count, dtype=torch.float64), counts)) / count


def percentile(draws: Float[Tensor, "draws"], level: float = 0.95) -> Interval:
    """The percentile interval of bootstrap ``draws`` of a number."""
    tail = (1.0 - level) / 2.0
    ends = torch.quantile(draws.double(), torch.tensor([tail, 1.0 - tail], dtype=torch.float64))
    return Interval(float(ends[0]), float(ends[1]))


def bootstrap_mean(values: Float[Tensor, "B"]) -> Interval:
    """The 95 % percentile interval of the mean of one value per text."""
    return percentile(resampled_means(values[:, None])[:, 0])

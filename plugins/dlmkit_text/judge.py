"""An n-gram judge: interpolated modified Kneser-Ney (Chen and Goodman 1999).

    P_n(w | h) = max(c(hw) - D(c(hw)), 0) / c(h.) + gamma(h) P_(n-1)(w | h')

with c the counts at the highest order and the numbers of distinct left neighbours below it,
h' the context without its first symbol, and P_0 uniform over the alphabet and one more symbol,
which stands for everything that the training text lacks. D has one value for counts of 1, 2 and
more, from the counts of counts of its order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlmkit_text.ngrams import Grams, Ints, count, locate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """One order: of each n-gram its discounted count, of each context its total and gamma."""

    grams: Grams
    discounted: Floats
    total: Floats
    gamma: Floats


class KneserNey:
    """A language model of integer symbols 0 to ``size`` - 1; -1 is any symbol never seen."""

    def __init__(self, stream: Ints, size: int, order: int) -> None:
        """Fit to ``stream``, which must hold at least ``order`` symbols."""
        self.size = size
        grams = count(stream, size, order)
        self.orders = [
            _order(level, _adjusted(grams, n), 1 if n == 0 else len(grams[n - 1].keys))
            for n, level in enumerate(grams)
        ]

    def log_probabilities(self, stream: Ints) -> Floats:
        """Nats of each symbol given those before it, of which there are none at the start."""
        p = np.full(len(stream), 1.0 / (self.size + 1))
        grams = locate([order.grams for order in self.orders], stream)
        for n, order in enumerate(self.orders):
            if n == 0:
                context = np.zeros(len(stream), dtype=np.int64)
            else:
                context = np.concatenate(([-1], grams[n - 1][:-1]))
            p = _interpolate(order, context, grams[n], p)
        logarithms: Floats = np.log(p)
        return logarithms

    def distribution(self, context: Ints) -> Floats:
        """P of every symbol after ``context``, the never-seen one last; they sum to 1."""
        rows = [np.concatenate((context, [symbol])) for symbol in (*range(self.size), -1)]
        return np.exp([self.log_probabilities(row)[-1] for row in rows])


def _interpolate(order: _Order, context: Ints, gram: Ints, lower: Floats) -> Floats:
    known = (context >= 0) & (order.total[context] > 0)
    total = np.where(known, order.total[context], 1.0)
    direct = np.where(known & (gram >= 0), order.discounted[gram], 0.0)
    gamma = np.where(known, order.gamma[context], 1.0)
    return direct / total + gamma * lower


def _adjusted(grams: list[Grams], n: int) -> Ints:
    """Counts at the highest order; below it the number of distinct symbols to the left."""
    if n == len(grams) - 1:
        return grams[n].counts
    return np.bincount(grams[n + 1].suffix, minlength=len(grams[n].keys))


def _order(grams: Grams, counts: Ints, contexts: int) -> _Order:
    removed = _discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(grams.prefix, counts, contexts).astype(np.float64)
    mass = np.bincount(grams.prefix, removed, contexts)
    gamma = np.divide(mass, total, out=np.ones(contexts), where=total > 0)
    return _Order(grams, counts - removed, total, gamma)


def _discounts(counts: Ints) -> Floats:
    """D for counts 0, 1, 2, 3 and more.

    Where the counts of counts are too thin to estimate it (an order at which everything is
    frequent) it is half a count, so that unseen symbols keep some probability.
    """
    n1, n2, n3, n4 = (int((counts == c).sum()) for c in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) == 0:
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = n1 / (n1 + 2.0 * n2)
    estimates = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    bounded = [min(max(d, 0.01), c) for c, d in enumerate(estimates, start=1)]
    return np.array([0.0, *bounded])

"""Counts of n-grams of integer symbols, all orders at once, as sorted arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Grams:
    """The distinct n-grams of one order.

    ``keys`` (sorted) is prefix * size + last symbol, where prefix is the index of the first
    n - 1 symbols among the distinct (n-1)-grams; ``counts`` how often each occurs, ``suffix``
    the index of its last n - 1 symbols, both int64 like ``keys``.
    """

    keys: Ints
    counts: Ints
    suffix: Ints
    size: int

    @property
    def prefix(self) -> Ints:
        """The index of each n-gram's first n - 1 symbols."""
        return self.keys // self.size

    @property
    def last(self) -> Ints:
        """Each n-gram's last symbol."""
        return self.keys % self.size

    def find(self, prefix: Ints, symbol: Ints) -> Ints:
        """The indices of n-grams given as (index of prefix, last symbol); -1 where unseen.

        A prefix or symbol of -1 is unseen.
        """
        keys = np.where((prefix < 0) | (symbol < 0), -1, prefix * self.size + symbol)
        index = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[index] == keys, index, -1)


def count(stream: Ints, size: int, order: int) -> list[Grams]:
    """The n-grams of ``stream`` (symbols 0 to size - 1) for n = 1 to ``order``.

    ``stream`` must hold at least ``order`` symbols.
    """
    grams: list[Grams] = []
    at = np.zeros(len(stream) + 1, dtype=np.int64)
    for n in range(1, order + 1):
        starts = len(stream) - n + 1
        keys, first, index, counts = np.unique(
            at[:starts] * size + stream[n - 1 :],
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        grams.append(Grams(keys, counts, at[first + 1], size))
        at = index
    return grams


def locate(grams: list[Grams], stream: Ints) -> list[Ints]:
    """For each order, the index of the n-gram that ends at each position; -1 where unseen.

    Nothing lies before the start, so no n-gram ends at the first n - 1 positions.
    """
    places = [np.zeros(len(stream), dtype=np.int64)]
    for n, level in enumerate(grams, start=1):
        prefix = places[-1] if n == 1 else np.concatenate(([-1], places[-1][:-1]))
        places.append(level.find(prefix, stream))
    return places[1:]

"""N-grams of many texts, counted over any selection of them without cutting them again."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Pool:
    """The n-grams of ``rows``, none of which crosses two rows."""

    def __init__(self, rows: Sequence[Sequence[Hashable]], n: int) -> None:
        self.rows = len(rows)
        index: dict[tuple[Hashable, ...], int] = {}
        grams = [list(zip(*(row[i:] for i in range(n)), strict=False)) for row in rows]
        self.codes: Ints = np.array(
            [index.setdefault(gram, len(index)) for row in grams for gram in row], dtype=np.int64
        )
        self.owner: Ints = np.repeat(np.arange(self.rows), [len(row) for row in grams])
        self.size = len(index)

    def counts(self, chosen: Sequence[int]) -> Ints:
        """How often each n-gram occurs in the rows ``chosen``, which may repeat; zeros left out."""
        times = np.bincount(np.asarray(chosen, dtype=np.int64), minlength=self.rows)
        weights = times[self.owner]
        counts = np.bincount(self.codes, weights, minlength=self.size).astype(np.int64)
        return counts[counts > 0]


def entropy(counts: Ints) -> float:
    """Of the relative frequencies, in nats: 0.0, and not -0.0, of a single gram."""
    shares = counts / counts.sum()
    return 0.0 - math.fsum(shares * np.log(shares))

"""The metrics `zipf` and `repetition`: the shape of a vocabulary, and texts that go in circles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dlmkit_metrics.configs import Repetition, Zipf
from dlmkit_text.cut import CutMetric
from dlmkit_text.pooling import Pool


class ZipfMetric(CutMetric[Zipf, Pool]):
    """Zipf's exponent and unique units. All depend on the amount: compare equal amounts only."""

    def table(self, texts: Sequence[str]) -> Pool:
        return Pool([self.cut(text) for text in texts], 1)

    def numbers(self, table: Pool, chosen: Sequence[int]) -> dict[str, float]:
        """Empty for empty texts.

        zipf          s of frequency ~ rank^-s: least squares of the logarithms over the ranks
        unique        different units of all texts together
        unique_share  the same over the number of units
        """
        counts = np.sort(table.counts(chosen))[::-1]
        if not len(counts):
            return {}
        unique = {"unique": float(len(counts)), "unique_share": len(counts) / float(counts.sum())}
        top = counts[: self.config.top]
        return {"zipf": exponent(top), **unique} if len(top) > 1 else unique

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, 1.0 if name == "unique_share" else math.inf


def exponent(counts: NDArray[np.int64]) -> float:
    """Minus the slope of log count over log rank, for falling ``counts`` of two ranks or more."""
    rank = np.log(np.arange(1, len(counts) + 1))
    slope = np.polynomial.polynomial.polyfit(rank, np.log(counts), 1)[1]
    return float(-slope)


class RepetitionMetric(CutMetric[Repetition, NDArray[np.float64]]):
    """Repetition inside single texts."""

    def table(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """A row per text: repetition at each order (nan: it has no n-gram), whether it loops."""
        rows = [self.cut(text) for text in texts]
        shares = [
            [*(repeated(row, n) for n in self.config.orders), self._loops(row)] for row in rows
        ]
        return np.array(shares, dtype=np.float64)

    def _loops(self, row: Sequence[str]) -> bool:
        return loops(row, self.config.phrase, self.config.times)

    def numbers(self, table: NDArray[np.float64], chosen: Sequence[int]) -> dict[str, float]:
        """Means over texts.

        repetition_n  1 - distinct n-grams over n-grams of a text (seq-rep-n of 1908.04319), of
                      the texts that have one
        loops         share of texts that end in a phrase of ``phrase`` units or more that stands
                      there ``times`` times in a row (1904.09751 has 2 and 3)
        """
        names = [*(f"repetition_{n}" for n in self.config.orders), "loops"]
        columns = table[np.asarray(chosen, dtype=np.int64)].T
        known = {
            name: column[~np.isnan(column)] for name, column in zip(names, columns, strict=True)
        }
        return {name: float(values.mean()) for name, values in known.items() if len(values)}

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, 1.0


def repeated(row: Sequence[str], n: int) -> float:
    """The share of n-grams that stood in ``row`` before; nan if it has none."""
    count = len(row) - n + 1
    grams = set(zip(*(row[i:] for i in range(n)), strict=False))
    return 1.0 - len(grams) / count if count > 0 else float("nan")


def loops(row: Sequence[str], phrase: int, times: int) -> bool:
    """Whether ``row`` ends in a phrase of ``phrase`` units or more, ``times`` times in a row."""
    units = list(row)
    return any(
        units[-size * times :] == units[-size:] * times
        for size in range(phrase, len(units) // times + 1)
    )

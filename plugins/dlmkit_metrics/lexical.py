"""The metrics `zipf` and `repetition`: the shape of a vocabulary, and texts that go in circles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.metric import Measured, Metric, Numbers
from dlmkit_metrics.configs import Repetition, Zipf
from dlmkit_text.metrics import held_out
from dlmkit_text.pooling import Pool
from dlmkit_text.symbols import cutter


class ZipfMetric(Metric):
    """Zipf's exponent and unique units. All depend on the amount: compare equal amounts only."""

    def __init__(self, config: Zipf, context: BuildContext) -> None:
        self.config = config

    def fit(self, data: Data) -> None:
        """Take the tokenizer and the validation text of ``data``."""
        self.data = data
        self.cut = cutter(self.config.unit, data.tokenizer)

    def measure(self, texts: Sequence[str]) -> Numbers:
        return self.evaluate(texts).numbers

    def evaluate(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None
    ) -> Measured:
        """These numbers, and ``human_*`` of as much validation text; empty for empty texts.

        zipf          s of frequency ~ rank^-s: least squares of the logarithms over the ranks
        unique        different units of all texts together
        unique_share  the same over the number of units
        """
        everything = range(len(texts))
        own, human = self._pool(texts), self._pool(held_out(self.data, texts))
        beside = {f"human_{key}": value for key, value in self._of(human, everything).items()}
        return Measured(
            {**self._of(own, everything), **beside}, lambda chosen: self._of(own, chosen)
        )

    def _pool(self, texts: Sequence[str]) -> Pool:
        return Pool([self.cut(text) for text in texts], 1)

    def _of(self, pool: Pool, chosen: Sequence[int]) -> dict[str, float]:
        counts = np.sort(pool.counts(chosen))[::-1]
        if not len(counts):
            return {}
        found = {"unique": float(len(counts)), "unique_share": len(counts) / float(counts.sum())}
        top = counts[: self.config.top]
        return {"zipf": exponent(top), **found} if len(top) > 1 else found


def exponent(counts: NDArray[np.int64]) -> float:
    """Minus the slope of log count over log rank, for falling ``counts`` of two ranks or more."""
    rank = np.log(np.arange(1, len(counts) + 1))
    slope = np.polynomial.polynomial.polyfit(rank, np.log(counts), 1)[1]
    return float(-slope)


class RepetitionMetric(Metric):
    """Repetition inside single texts."""

    def __init__(self, config: Repetition, context: BuildContext) -> None:
        self.config = config

    def fit(self, data: Data) -> None:
        """Take the tokenizer and the validation text of ``data``."""
        self.data = data
        self.cut = cutter(self.config.unit, data.tokenizer)

    def measure(self, texts: Sequence[str]) -> Numbers:
        return self.evaluate(texts).numbers

    def evaluate(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None
    ) -> Measured:
        """Means over texts, and ``human_*`` of as much validation text:

        repetition_n  1 - distinct n-grams over n-grams of a text (seq-rep-n of 1908.04319), of
                      the texts that have one
        loops         share of texts that end in a phrase of ``phrase`` units or more that stands
                      there ``times`` times in a row (1904.09751 has 2 and 3)
        """
        own, human = self.table(texts), self.table(held_out(self.data, texts))
        everything = range(len(texts))
        beside = {f"human_{key}": value for key, value in self._of(human, everything).items()}
        return Measured(
            {**self._of(own, everything), **beside}, lambda chosen: self._of(own, chosen)
        )

    def table(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """A row a text: repetition at each order (nan: it has no n-gram), and whether it loops."""
        rows = [self.cut(text) for text in texts]
        found = [
            [*(repeated(row, n) for n in self.config.orders), self._loops(row)] for row in rows
        ]
        return np.array(found, dtype=np.float64)

    def _loops(self, row: Sequence[str]) -> bool:
        return loops(row, self.config.phrase, self.config.times)

    def _of(self, table: NDArray[np.float64], chosen: Sequence[int]) -> dict[str, float]:
        names = [*(f"repetition_{n}" for n in self.config.orders), "loops"]
        columns = table[np.asarray(chosen, dtype=np.int64)].T
        known = {
            name: column[~np.isnan(column)] for name, column in zip(names, columns, strict=True)
        }
        return {name: float(values.mean()) for name, values in known.items() if len(values)}


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

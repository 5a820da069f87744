"""The metrics `distinct` and `ngram-distance`: variety, and distance from held-out text.

Both need pooled n-grams of equal amounts of text to be compared: they depend on the amount.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from dlmkit.core.data import Data
from dlmkit_text.configs import Distinct, NgramDistance
from dlmkit_text.cut import CutMetric
from dlmkit_text.pooling import Pool, entropy

Grams = Counter[tuple[str, ...]]
Units = Sequence[str]


@dataclass(frozen=True)
class Pools:
    """The n-grams of some texts by n, and each text's number of units."""

    by_order: Mapping[int, Pool]
    lengths: Sequence[int]


class DistinctMetric(CutMetric[Distinct, Pools]):
    """Distinct-n by both published denominators, and the entropy of the pooled n-grams."""

    def fit(self, data: Data) -> None:
        """Cut the validation text of ``data``."""
        super().fit(data)
        self.documents = [self.cut(text) for text in data.texts("validation")]

    def human(self, texts: Sequence[str], table: Pools) -> dict[str, float]:
        rows = drawn(self.documents, table.lengths)
        return self.numbers(self._pools(rows), range(len(rows)))

    def table(self, texts: Sequence[str]) -> Pools:
        return self._pools([self.cut(text) for text in texts])

    def _pools(self, rows: Sequence[Units]) -> Pools:
        return Pools({n: Pool(rows, n) for n in self.config.orders}, [*map(len, rows)])

    def numbers(self, table: Pools, chosen: Sequence[int]) -> dict[str, float]:
        """For each n, if there are n-grams:

        distinct_n           share of the n-grams of all texts together that are distinct
        distinct_n_per_unit  distinct n-grams over the number of units, as 1510.03055 scales it
        entropy_n            entropy of their relative frequencies, in nats
        """
        units = sum(table.lengths[i] for i in chosen)
        values = {}
        for n, pool in table.by_order.items():
            counts = pool.counts(chosen)
            if len(counts):
                values[f"distinct_{n}"] = len(counts) / float(counts.sum())
                values[f"distinct_{n}_per_unit"] = len(counts) / units
                values[f"entropy_{n}"] = entropy(counts)
        return values

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, 1.0 if name.startswith("distinct_") else math.inf


class NgramDistanceMetric(CutMetric[NgramDistance, Sequence[Units]]):
    """Total variation between the n-grams of texts and of all held-out text.

    Unlike a judge's likelihood it cannot be won by repetition: both what is too frequent and
    what is missing counts. Finite samples are never at distance 0; read it beside ``human_*``,
    the distance of as much training text: what real text of this amount shows.
    """

    def fit(self, data: Data) -> None:
        """Count the validation text, each document by itself."""
        super().fit(data)
        self.documents = [self.cut(text) for text in data.texts("train")]
        rows = [self.cut(text) for text in data.texts("validation")]
        self.reference = {n: pooled(rows, n) for n in self.config.orders}

    def human(self, texts: Sequence[str], table: Sequence[Units]) -> dict[str, float]:
        rows = drawn(self.documents, [*map(len, table)])
        return self.numbers(rows, range(len(rows)))

    def table(self, texts: Sequence[str]) -> Sequence[Units]:
        return [self.cut(text) for text in texts]

    def numbers(self, table: Sequence[Units], chosen: Sequence[int]) -> dict[str, float]:
        """``ngram_tv_n`` from 0 to 1 for each n; some miss for empty texts."""
        rows = [table[i] for i in chosen]
        pairs = {n: (pooled(rows, n), self.reference[n]) for n in self.config.orders}
        return {f"ngram_tv_{n}": total_variation(a, b) for n, (a, b) in pairs.items() if a and b}

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, 1.0


def pooled(rows: Iterable[Units], n: int) -> Grams:
    """The n-grams of all rows together."""
    return Counter(gram for row in rows for gram in zip(*(row[i:] for i in range(n)), strict=False))


def drawn(documents: Sequence[Units], lengths: Sequence[int]) -> list[Units]:
    """Beginnings of ``documents``, in a fixed random order, of ``lengths`` units in all.

    Each length gets whole documents but for the last, which stay apart; they repeat once used up.
    """
    order = [document for document in documents if document]
    random.Random(0).shuffle(order)
    rows: list[Units] = []
    endless = cycle(order)
    for left in lengths if order else ():
        while left > 0:
            rows.append(next(endless)[:left])
            left -= len(rows[-1])
    return rows


def total_variation(a: Grams, b: Grams) -> float:
    """Half the sum of the absolute differences of relative frequencies."""
    here, there = a.total(), b.total()
    return 0.5 * sum(abs(a[gram] / here - b[gram] / there) for gram in a.keys() | b.keys())

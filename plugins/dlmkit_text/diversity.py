"""The metrics `distinct` and `ngram-distance`: variety, and distance from held-out text.

Both need pooled n-grams of equal amounts of text to be compared: they depend on the amount.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.metric import Measured, Metric
from dlmkit_text.configs import Distinct, NgramDistance
from dlmkit_text.metrics import pooled
from dlmkit_text.pooling import Pool, entropy
from dlmkit_text.symbols import cutter

Grams = Counter[tuple[str, ...]]
Units = Sequence[str]


class DistinctMetric(Metric):
    """Distinct-n by both published denominators, and the entropy of the pooled n-grams."""

    def __init__(self, config: Distinct, context: BuildContext) -> None:
        self.unit, self.orders = config.unit, config.orders

    def fit(self, data: Data) -> None:
        """Cut the validation text of ``data``."""
        self.cut = cutter(self.unit, data.tokenizer)
        self.documents = [self.cut(text) for text in data.texts("validation")]

    def measure(self, texts: Sequence[str]) -> Mapping[str, float]:
        """For each n, if there are n-grams, and ``human_*`` of as much validation text:

        distinct_n           share of the n-grams of all texts together that are distinct
        distinct_n_per_unit  distinct n-grams over the number of units, as 1510.03055 scales it
        entropy_n            entropy of their relative frequencies, in nats
        """
        return self.evaluate(texts).numbers

    def evaluate(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None
    ) -> Measured:
        """:meth:`measure`, cutting every text once."""
        rows = [self.cut(text) for text in texts]
        human = {f"human_{k}": v for k, v in self.score(drawn(self.documents, rows)).items()}
        pools, lengths = {n: Pool(rows, n) for n in self.orders}, [*map(len, rows)]
        again = partial(_variety, pools, lengths)
        return Measured({**again(range(len(rows))), **human}, again)

    def score(self, rows: Sequence[Units]) -> dict[str, float]:
        """The numbers of ``rows`` alone."""
        pools = {n: Pool(rows, n) for n in self.orders}
        return _variety(pools, [*map(len, rows)], range(len(rows)))


class NgramDistanceMetric(Metric):
    """Total variation between the n-grams of texts and of all held-out text.

    Unlike a judge's likelihood it cannot be won by repetition: both what is too frequent and
    what is missing counts. Finite samples are never at distance 0; read it beside ``human_*``.
    """

    def __init__(self, config: NgramDistance, context: BuildContext) -> None:
        self.unit, self.orders = config.unit, config.orders

    def fit(self, data: Data) -> None:
        """Count the validation text, each document by itself."""
        self.cut = cutter(self.unit, data.tokenizer)
        self.documents = [self.cut(text) for text in data.texts("train")]
        rows = [self.cut(text) for text in data.texts("validation")]
        self.reference = {n: pooled(rows, n) for n in self.orders}

    def measure(self, texts: Sequence[str]) -> Mapping[str, float]:
        """``ngram_tv_n`` from 0 to 1 for each n; some miss for empty texts.

        ``human_*`` is the distance of as much training text: what real text of this amount shows.
        """
        return self.evaluate(texts).numbers

    def evaluate(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None
    ) -> Measured:
        """:meth:`measure`, cutting every text once."""
        rows = [self.cut(text) for text in texts]
        human = {f"human_{k}": v for k, v in self.score(drawn(self.documents, rows)).items()}
        return Measured(
            {**self.score(rows), **human}, lambda chosen: self.score([rows[i] for i in chosen])
        )

    def score(self, rows: Sequence[Units]) -> dict[str, float]:
        """The distances of ``rows`` alone."""
        pairs = {n: (pooled(rows, n), self.reference[n]) for n in self.orders}
        return {f"ngram_tv_{n}": total_variation(a, b) for n, (a, b) in pairs.items() if a and b}


def _variety(
    pools: Mapping[int, Pool], lengths: Sequence[int], chosen: Sequence[int]
) -> dict[str, float]:
    """The numbers of :class:`DistinctMetric` of the rows ``chosen``."""
    units = sum(lengths[i] for i in chosen)
    found = {}
    for n, pool in pools.items():
        counts = pool.counts(chosen)
        if len(counts):
            found[f"distinct_{n}"] = len(counts) / float(counts.sum())
            found[f"distinct_{n}_per_unit"] = len(counts) / units
            found[f"entropy_{n}"] = entropy(counts)
    return found


def drawn(documents: Sequence[Units], rows: Sequence[Units]) -> list[Units]:
    """Beginnings of ``documents``, in a fixed random order, of as many units in all as ``rows``.

    Each row gets whole documents but for the last, which stay apart; they repeat once used up.
    """
    order = [document for document in documents if document]
    random.Random(0).shuffle(order)
    found: list[Units] = []
    endless = cycle(order)
    for left in map(len, rows) if order else ():
        while left > 0:
            found.append(next(endless)[:left])
            left -= len(found[-1])
    return found


def total_variation(a: Grams, b: Grams) -> float:
    """Half the sum of the absolute differences of relative frequencies."""
    here, there = a.total(), b.total()
    return 0.5 * sum(abs(a[gram] / here - b[gram] / there) for gram in a.keys() | b.keys())

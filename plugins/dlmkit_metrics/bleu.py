"""The metric `self-bleu`, in time linear in the amount of text."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dlmkit_metrics.configs import SelfBleu
from dlmkit_text.cut import CutMetric

Gram = tuple[str, ...]


class SelfBleuMetric(CutMetric[SelfBleu, list[float]]):
    """Sentence BLEU of each text with all other texts as references (Zhu et al., 1802.01886)."""

    def table(self, texts: Sequence[str]) -> list[float]:
        """Of each text. Empty for fewer than two texts that hold anything; empty ones score 0."""
        rows = [self.cut(text) for text in texts]
        if sum(map(bool, rows)) < 2:
            return []
        return self_bleu(rows, self.config.order, self.config.epsilon)

    def numbers(self, table: list[float], chosen: Sequence[int]) -> dict[str, float]:
        """``self_bleu``, mean over texts; missing for fewer than two texts that hold anything.

        Resampling keeps each text's own score: a second copy of a text would be a perfect
        reference.
        """
        return {"self_bleu": float(np.asarray(table)[np.asarray(chosen)].mean())} if table else {}


def self_bleu(rows: Sequence[Sequence[str]], order: int, epsilon: float) -> list[float]:
    """BLEU of every row against the others: clipped counts, closest reference length.

    A row's references are all other rows, and a clipped count needs the largest count among
    them alone; so the two largest counts of each n-gram serve every row. Of two references
    equally close in length the shorter one counts.
    """
    precisions = [_precisions(rows, n, epsilon) for n in range(1, order + 1)]
    lengths = sorted(len(row) for row in rows)
    return [
        _penalty(len(row), lengths) * math.exp(sum(logs) / order) if row else 0.0
        for row, *logs in zip(rows, *precisions, strict=True)
    ]


def _precisions(rows: Sequence[Sequence[str]], n: int, epsilon: float) -> list[float]:
    """The logarithm of the clipped n-gram precision of each row."""
    counted = [_grams(row, n) for row in rows]
    top = _two_largest(counted)
    found = []
    for counts in counted:
        matches = 0.0
        for gram, count in counts.items():
            first, second, how_many = top[gram]
            others = second if count == first and how_many == 1 else first
            matches += min(count, others)
        precision = (matches or epsilon) / max(counts.total(), 1)
        found.append(math.log(precision) if precision else -math.inf)
    return found


def _two_largest(counted: Sequence[Counter[Gram]]) -> Mapping[Gram, tuple[int, int, int]]:
    """Of each n-gram its largest count in a row, the next smaller, and how many have the first."""
    top: dict[Gram, tuple[int, int, int]] = {}
    for counts in counted:
        for gram, count in counts.items():
            first, second, how_many = top.get(gram, (0, 0, 0))
            if count > first:
                top[gram] = (count, first, 1)
            elif count == first:
                top[gram] = (first, second, how_many + 1)
            elif count > second:
                top[gram] = (first, count, how_many)
    return top


def _grams(row: Sequence[str], n: int) -> Counter[Gram]:
    return Counter(zip(*(row[i:] for i in range(n)), strict=False))


def _penalty(length: int, lengths: Sequence[int]) -> float:
    """The brevity penalty of a row among rows of the sorted ``lengths``, its own included."""
    here = bisect_left(lengths, length)
    others = [
        lengths[i] for i in (here - 1, here + 1) if 0 <= i < len(lengths)
    ]  # `here` is the row itself; an equal one would stand at here + 1
    closest = min(others, key=lambda other: (abs(other - length), other))
    return 1.0 if length > closest else math.exp(1.0 - closest / length)

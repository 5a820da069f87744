"""The metric `self-bleu`, in time linear in the amount of text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dlmkit_metrics.configs import SelfBleu
from dlmkit_text.cut import CutMetric
from dlmkit_text.pooling import Pool

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class SelfBleuMetric(CutMetric[SelfBleu, "Counted"]):
    """Sentence BLEU of each text with all other texts as references (Zhu et al., 1802.01886)."""

    def table(self, texts: Sequence[str]) -> Counted:
        return Counted([self.cut(text) for text in texts], self.config.order)

    def numbers(self, table: Counted, chosen: Sequence[int]) -> dict[str, float]:
        """``self_bleu``, mean over texts, of which empty ones score 0; missing for fewer than two
        texts that hold anything."""
        if np.count_nonzero(table.lengths[np.asarray(chosen, dtype=np.int64)]) < 2:
            return {}
        return {"self_bleu": float(table.scores(chosen, self.config.epsilon).mean())}

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, 1.0


class Counted:
    """How often each n-gram of up to ``order`` units stands in each of ``rows``."""

    def __init__(self, rows: Sequence[Sequence[str]], order: int) -> None:
        self.lengths: Ints = np.array([*map(len, rows)], dtype=np.int64)
        self.orders = [_entries(Pool(rows, n)) for n in range(1, order + 1)]

    def scores(self, chosen: Sequence[int], epsilon: float) -> Floats:
        """BLEU of each chosen row against the others of them: clipped counts, the closest
        reference length, the shorter of two equally close.

        The orders weigh equally, without those that a row is too short for (sacrebleu's effective
        order, Post 2018): they say nothing of it.
        """
        index = np.asarray(chosen, dtype=np.int64)
        kept = np.zeros(len(self.lengths), dtype=bool)
        kept[index] = True
        logs, orders = np.zeros(len(kept)), np.zeros(len(kept))
        for entries in self.orders:
            total = np.bincount(entries[0], entries[2], minlength=len(kept))
            matches = _clipped(entries[:, kept[entries[0]]], len(kept))
            matches[matches == 0] = epsilon
            with np.errstate(divide="ignore"):  # a logarithm of 0 is meant: the score is 0
                logs += np.where(total > 0, np.log(matches / np.maximum(total, 1)), 0.0)
            orders += total > 0
        lengths = self.lengths[index]
        means = logs[index] / np.maximum(orders[index], 1)
        scores: Floats = np.where(lengths > 0, np.exp(means + _penalties(lengths)), 0.0)
        return scores


def _entries(pool: Pool) -> Ints:
    """(row, n-gram, count) as three rows of int64, by n-gram, its largest counts first."""
    pairs, counts = np.unique(pool.owner * pool.size + pool.codes, return_counts=True)
    rows, grams = np.divmod(pairs, max(pool.size, 1))
    order = np.lexsort((-counts, grams))
    return np.stack((rows, grams, counts))[:, order]


def _clipped(entries: Ints, rows: int) -> Floats:
    """Matches of each row: every count is clipped at the largest one of the other rows.

    That is an n-gram's largest count for all rows but the one that has it, and for that row the
    next one, so the first two entries of each n-gram serve every row.
    """
    row, gram, count = entries
    first = np.r_[True, gram[1:] != gram[:-1]][: len(gram)]
    start = np.flatnonzero(first)
    following = np.append(count, 0)[start + 1]
    second = np.where(np.append(first, True)[start + 1], 0, following)
    others = np.where(first, second[np.cumsum(first) - 1], count[start][np.cumsum(first) - 1])
    counted: Floats = np.bincount(row, np.minimum(count, others), minlength=rows).astype(np.float64)
    return counted


def _penalties(lengths: Ints) -> Floats:
    """The logarithm of the brevity penalty of each row among rows of these ``lengths``."""
    ranked = np.sort(lengths).astype(np.float64)
    here = np.searchsorted(ranked, lengths)  # of the row itself; an equal one stands after it
    around = np.r_[-np.inf, ranked, np.inf]
    below, above = around[here], around[here + 2]
    closest = np.where(lengths - below <= above - lengths, below, above)
    penalties: Floats = np.minimum(0.0, 1.0 - closest / np.maximum(lengths, 1))
    return penalties

"""Self-BLEU in linear time against its quadratic definition."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmkit_metrics.bleu import Counted

texts = st.lists(st.lists(st.sampled_from("abc"), max_size=7), min_size=2, max_size=6)


def bleu(row, references, order, epsilon):
    """Papineni et al. (2002), one sentence against several references, as it is written."""
    logs, orders = 0.0, min(order, len(row))
    for n in range(1, orders + 1):
        grams = lambda r, n=n: Counter(tuple(r[i : i + n]) for i in range(len(r) - n + 1))  # noqa: E731
        own = grams(row)
        clipped = sum(min(c, max(grams(r)[g] for r in references)) for g, c in own.items())
        logs += math.log((clipped or epsilon) / own.total()) / orders
    closest = min((abs(len(r) - len(row)), len(r)) for r in references)[1]
    return math.exp(logs + min(0.0, 1.0 - closest / len(row))) if row else 0.0


def self_bleu(rows, order, epsilon, chosen=None):
    return Counted(rows, order).scores(chosen or range(len(rows)), epsilon).tolist()


@given(texts, st.integers(1, 4))
def test_it_is_the_quadratic_definition(rows, order):
    others = [[*rows[:i], *rows[i + 1 :]] for i in range(len(rows))]
    expected = [bleu(r, rest, order, 0.1) for r, rest in zip(rows, others, strict=True)]
    assert self_bleu(rows, order, 0.1) == pytest.approx(expected)


@given(texts, st.integers(1, 4))
def test_rows_that_are_left_out_are_no_references(rows, order):
    kept = [i for i in range(len(rows)) if i != 1]
    expected = self_bleu([rows[i] for i in kept], order, 0.1) if len(kept) > 1 else [None]
    assert len(kept) < 2 or self_bleu(rows, order, 0.1, kept) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["abcd", "abc", "a"])
def test_twins_are_perfect_references_however_short(text):
    assert self_bleu([list(text)] * 2, 4, 0.1) == pytest.approx([1.0, 1.0])


def test_without_smoothing_an_order_without_matches_is_zero():
    assert self_bleu([list("abcd"), list("dcba")], 4, 0.0) == [0.0, 0.0]

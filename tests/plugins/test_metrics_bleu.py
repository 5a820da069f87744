"""Self-BLEU in linear time against its quadratic definition."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmkit_metrics.bleu import self_bleu

texts = st.lists(st.lists(st.sampled_from("abc"), max_size=7), min_size=2, max_size=6)


def bleu(row, references, order, epsilon):
    """Papineni et al. (2002), one sentence against several references, as it is written."""
    logs = 0.0
    for n in range(1, order + 1):
        grams = lambda r, n=n: Counter(tuple(r[i : i + n]) for i in range(len(r) - n + 1))  # noqa: E731
        own = grams(row)
        clipped = sum(min(c, max(grams(r)[g] for r in references)) for g, c in own.items())
        logs += math.log((clipped or epsilon) / max(own.total(), 1)) / order
    closest = min((abs(len(r) - len(row)), len(r)) for r in references)[1]
    return math.exp(logs + min(0.0, 1.0 - closest / len(row))) if row else 0.0


@given(texts, st.integers(1, 4))
def test_it_is_the_quadratic_definition(rows, order):
    others = [[*rows[:i], *rows[i + 1 :]] for i in range(len(rows))]
    expected = [bleu(r, rest, order, 0.1) for r, rest in zip(rows, others, strict=True)]
    assert self_bleu(rows, order, 0.1) == pytest.approx(expected)


def test_twins_are_perfect_references():
    twins = [list("abcd"), list("abcd")]
    assert self_bleu(twins, 4, 0.1) == pytest.approx([1.0, 1.0])


def test_without_smoothing_an_order_without_matches_is_zero():
    assert self_bleu([list("abcd"), list("dcba")], 4, 0.0) == [0.0, 0.0]

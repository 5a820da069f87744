"""Zipf, repetition and pooled n-grams against counting by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmkit_metrics.lexical import exponent, loops, repeated
from dlmkit_text.diversity import pooled
from dlmkit_text.pooling import Pool, entropy

rows = st.lists(st.lists(st.sampled_from("ab"), max_size=5), min_size=1, max_size=4)


@given(rows, st.integers(1, 3), st.data())
def test_a_pool_counts_any_selection(rows, n, data):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6))
    counts = pooled([rows[i] for i in chosen], n)
    found = Pool(rows, n).counts(chosen)
    assert sorted(found.tolist()) == sorted(counts.values())
    if counts:
        shares = [count / counts.total() for count in counts.values()]
        assert entropy(found) == pytest.approx(-sum(p * math.log(p) for p in shares))
    assert str(entropy(np.array([7]))) == "0.0"


@pytest.mark.parametrize("s", [0.5, 1.0, 1.7])
def test_the_exponent_of_an_exact_power_law(s):
    counts = 1e9 * np.arange(1, 200.0) ** -s
    assert exponent(counts) == pytest.approx(s)


def test_repetition_inside_a_text():
    assert repeated(["a", "b", "a", "b", "a"], 2) == pytest.approx(1 - 2 / 4)
    assert repeated(["a", "b", "c"], 1) == 0.0
    assert math.isnan(repeated(["a"], 2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x a b a b a b", True),
        ("a b a b a b c", False),  # it got out again
        ("a b a b", False),  # only twice
        ("x a a a a a", False),  # five of one: no phrase of two units three times
        ("x a a a a a a", True),
    ],
)
def test_a_loop_ends_a_text(text, expected):
    assert loops(text.split(), 2, 3) is expected

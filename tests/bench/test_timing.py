"""Seconds and their summary, against pytest-benchmark's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats

from dlmkit.bench.timing import interleaved, summary


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12))
def test_the_summary_is_pytest_benchmarks(seconds):
    theirs = Stats()
    for value in seconds:
        theirs.update(value)
    ours = summary(seconds)
    for field in ("min", "max", "mean", "stddev", "median", "ops", "total", "rounds"):
        assert ours[field] == pytest.approx(getattr(theirs, field), rel=1e-9, abs=1e-12)
    if len(seconds) > 1:
        for field in ("q1", "q3", "iqr", "ld15iqr", "hd15iqr"):
            assert ours[field] == pytest.approx(getattr(theirs, field), rel=1e-9, abs=1e-12)
        assert ours["iqr_outliers"] == theirs.iqr_outliers


def test_rounds_are_interleaved():
    calls = []
    seconds = interleaved([lambda: calls.append("a"), lambda: calls.append("b")], rounds=3)
    assert calls == list("ababab")
    assert [len(own) for own in seconds] == [3, 3]
    assert all(value > 0.0 for own in seconds for value in own)

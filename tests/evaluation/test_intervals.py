"""Binomial tails and intervals against exact arithmetic."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmkit.evaluation.intervals import (
    binomial_cdf,
    bootstrap_mean,
    clopper_pearson,
    percentile,
    resampled_means,
)


@given(st.integers(1, 300), st.data())
def test_the_tail_is_the_sum_of_its_terms(n, data):
    k = data.draw(st.integers(-1, n))
    p = Fraction(data.draw(st.integers(0, 40)), 40)
    exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))
    assert binomial_cdf(k, n, float(p)) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


def test_the_interval_leaves_each_tail_its_share():
    for k, n in ((0, 10), (3, 10), (10, 10), (40, 2000)):
        low, high = clopper_pearson(k, n)
        if k > 0:
            assert 1.0 - binomial_cdf(k - 1, n, low) == pytest.approx(0.025)
        if k < n:
            assert binomial_cdf(k, n, high) == pytest.approx(0.025)
    assert clopper_pearson(0, 10).low == 0.0
    assert clopper_pearson(10, 10).high == 1.0
    assert clopper_pearson(0, 10).high == pytest.approx(1.0 - 0.025 ** (1 / 10))


def test_bootstrap_of_a_mean_is_about_normal():
    values = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = bootstrap_mean(values)
    half = 1.96 * float(values.std()) / 20.0
    assert low == pytest.approx(float(values.mean()) - half, abs=0.02)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.02)
    assert bootstrap_mean(values) == (low, high)


def test_paired_values_are_drawn_together():
    values = torch.rand(50, dtype=torch.float64)
    means = resampled_means(torch.stack((values, 1.0 - values), dim=1), draws=100)
    torch.testing.assert_close(means.sum(dim=1), torch.ones(100, dtype=torch.float64))


def test_percentile_of_known_draws():
    assert percentile(torch.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))

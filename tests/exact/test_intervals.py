"""Binomial tails and intervals against exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dlmkit.core.context import BuildContext
from dlmkit.exact.intervals import (
    binomial_cdf,
    bootstrap_mean,
    clopper_pearson,
    jackknife,
    left_out,
    percentile,
    resampled_means,
    resampled_shares,
    student,
)
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry


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


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 15, 63, 199])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.998])
def test_students_t_is_scipys(freedom, level):
    expected = stats.t.ppf(0.5 + level / 2, freedom)
    assert student(freedom, level) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("count", "parts"), [(12, 200), (12, 4), (13, 5), (2, 200)])
def test_parts_are_left_out_once_each(count, parts):
    kept = [rows.tolist() for rows in left_out(count, parts)]
    gone = [sorted(set(range(count)) - set(rows)) for rows in kept]
    assert len(gone) == min(parts, count)
    assert sorted(i for rows in gone for i in rows) == [*range(count)]
    assert max(map(len, gone)) - min(map(len, gone)) <= 1
    assert list(left_out(1, parts)) == list(left_out(0, parts)) == []


@pytest.mark.parametrize("parts", [3, 12, 40])
def test_the_jackknife_of_a_mean_is_its_standard_error(parts):
    """Exactly for parts of one text, and about so for parts of unequal sizes."""
    values = torch.randn(40, generator=torch.Generator().manual_seed(2)).double()
    left = [float(values[rows].mean()) for rows in left_out(40, parts)]
    error = jackknife(float(values.mean()), left, 40).error
    assert error == pytest.approx(float(values.std()) / 40**0.5, rel=1e-9 if parts == 40 else 0.5)


def test_parts_of_unequal_sizes_do_not_count_what_the_amount_of_text_does():
    """A number that depends on nothing but the amount of text, as 1 / texts does, is certain."""
    left = [1.0 / len(rows) for rows in left_out(250, 200)]
    assert jackknife(1.0 / 250, left, 250).error < 1e-6


def words(generator, texts):
    """Texts of 24 words by Zipf's law, each of one of three topics; two in five go in circles."""
    shares = 1.0 / np.arange(1, 301)
    topics = np.stack([np.where(np.arange(300) % 3 == topic, 6.0, 1.0) for topic in range(3)])
    found = []
    for topic, loops in generator.random((texts, 2)):
        weights = shares * topics[int(3 * topic)]
        row = generator.choice(300, size=24, p=weights / weights.sum())
        found.append(" ".join(map(str, np.tile(row[:12], 2) if loops < 0.4 else row)))
    return found


POOLED = ("text:distinct", "metrics:zipf", "metrics:repetition", "metrics:self-bleu")


def test_intervals_of_pooled_statistics_hold_the_value_as_often_as_they_say():
    """100 sets of 20 texts, whose own mean over 600 sets stands for the expected value.

    Were the truth 95 %, 87 of 100 or fewer would happen once in 500 times; a bootstrap's own
    intervals of distinct_2, which are three times as wide, hold it always.
    """
    registry = Registry.load(third_party=False)
    metrics = [registry.build("metric", Part(use=use), BuildContext(length=24)) for use in POOLED]
    for metric in metrics:
        metric.cut = str.split
    generator = np.random.default_rng(3)

    def measured(texts):
        return [(m, m.table(texts)) for m in metrics]

    def every(tables, chosen):
        return {k: v for m, table in tables for k, v in m.numbers(table, chosen).items()}

    sets = [measured(words(generator, 20)) for _ in range(600)]
    values = [every(tables, range(20)) for tables in sets]
    names = [name for name in values[0] if name != "loops"]  # none here ends in three phrases
    truth = {name: np.mean([value[name] for value in values]) for name in names}
    spread = {name: np.std([value[name] for value in values]) for name in names}
    held, errors = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    for tables, value in zip(sets[:100], values[:100], strict=True):
        left = [every(tables, kept.tolist()) for kept in left_out(20, 200)]
        for name in names:
            found = jackknife(value[name], [one[name] for one in left], 20)
            held[name] += found.interval.low <= truth[name] <= found.interval.high
            errors[name] += found.error / 100
    assert all(count >= 88 for count in held.values()), held
    ratios = {name: errors[name] / spread[name] for name in names}
    assert all(0.85 < ratio < 1.35 for ratio in ratios.values()), ratios


def test_resampled_shares_are_those_of_the_resampled_means():
    values = torch.rand(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = resampled_shares(7, draws=50, seed=3)
    torch.testing.assert_close(shares[0] @ values, values.mean(dim=0))
    torch.testing.assert_close(shares[1:] @ values, resampled_means(values, 50, seed=3))

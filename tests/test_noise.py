"""Keyed noise: known values, moments, uniformity, and what may not depend on what."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmkit.noise import Noise

PINNED_UNIFORM = [0.42505308991723745, 0.6431707308153176]
PINNED_NORMAL = [0.9166422743043352, -1.3330335031689884, -0.05644418046052263]
PINNED_FORK = [7021497482460811177]

KEYS = st.integers(min_value=0, max_value=2**62)


def rows(*values):
    return torch.tensor(values, dtype=torch.int64)


def correlation(a, b):
    a, b = a.flatten().double(), b.flatten().double()
    return float(torch.corrcoef(torch.stack((a, b)))[0, 1])


def splitmix(state):
    """The finaliser of SplitMix64 in unbounded integers, as published."""
    mask = (1 << 64) - 1
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def fold(key, value):
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15
    return splitmix(((key ^ splitmix((value + golden) & mask)) + golden) & mask)


@given(KEYS, KEYS, KEYS, st.integers(0, 5), st.integers(0, 7))
def test_bits_are_splitmix64_of_the_folded_key(seed, row, step, draw, index):
    key = fold(fold(fold(fold(0, seed), row), step), draw)
    counter = (index + 1) * 0x9E3779B97F4A7C15
    bits = splitmix((key + counter) & ((1 << 64) - 1))
    drawn = Noise.keyed(seed, rows(row), step).uniform(draw, (8,), torch.float64)[0, index]
    assert float(drawn) == (bits >> 11) * 2.0**-53


def test_known_values():
    """Pinned: a change here changes every text ever sampled with a seed."""
    noise = Noise.keyed(7, rows(3), 5)
    assert noise.uniform(0, (2,), torch.float64)[0].tolist() == PINNED_UNIFORM
    assert noise.normal(1, (3,), torch.float64)[0].tolist() == pytest.approx(PINNED_NORMAL, 1e-12)
    assert noise.fork(4).key.tolist() == PINNED_FORK


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_moments(dtype):
    x = Noise.keyed(0, torch.arange(500), 1).normal(0, (401,), dtype).double()
    n = x.numel()
    assert x.shape == (500, 401)
    assert abs(float(x.mean())) < 4 / math.sqrt(n)
    assert abs(float(x.var()) - 1) < 4 * math.sqrt(2 / n)
    assert abs(float((x**3).mean())) < 4 * math.sqrt(15 / n)
    assert abs(float((x**4).mean()) - 3) < 4 * math.sqrt(96 / n)


def test_normal_follows_the_normal_law():
    x = (
        Noise.keyed(1, torch.arange(200), 0)
        .normal(0, (500,), torch.float64)
        .flatten()
        .sort()
        .values
    )
    cdf = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    empirical = torch.arange(1, len(x) + 1) / len(x)
    assert float((cdf - empirical).abs().max()) < 1.95 / math.sqrt(len(x))  # KS at 0.001


def chi_square(u, bins=64):
    counts = torch.histc(u.double().flatten(), bins, 0.0, 1.0)
    expected = u.numel() / bins
    return float(((counts - expected) ** 2 / expected).sum())


LIMIT_63 = 103.4  # chi-square with 63 degrees of freedom at 0.001


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_within_a_row(dtype):
    u = Noise.keyed(0, rows(0), 0).uniform(0, (50_000,), dtype)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert chi_square(u) < LIMIT_63


@pytest.mark.parametrize("axis", ["seed", "row", "step", "draw", "domain"])
def test_uniform_across_keys(axis):
    """The first number of neighbouring keys is as uniform as a row's own numbers."""
    count = 20_000
    if axis == "row":
        u = Noise.keyed(3, torch.arange(count), 0).uniform(0)
    elif axis == "step":
        u = Noise.keyed(3, torch.zeros(count, dtype=torch.int64), torch.arange(count)).uniform(0)
    else:
        make = {
            "seed": lambda i: Noise.keyed(i, rows(0), 0).uniform(0),
            "draw": lambda i: Noise.keyed(3, rows(0), 0).uniform(i),
            "domain": lambda i: Noise.keyed(3, rows(0), 0).fork(i).uniform(0),
        }[axis]
        u = torch.cat([make(i) for i in range(2_000)])
    assert chi_square(u) < LIMIT_63


@pytest.mark.parametrize("axis", ["seed", "row", "step", "draw", "domain"])
def test_neighbouring_keys_do_not_correlate(axis):
    count = 100_000
    here = Noise.keyed(2, rows(5), 9)
    a = here.normal(0, (count,))
    b = {
        "seed": lambda: Noise.keyed(3, rows(5), 9).normal(0, (count,)),
        "row": lambda: Noise.keyed(2, rows(6), 9).normal(0, (count,)),
        "step": lambda: Noise.keyed(2, rows(5), 10).normal(0, (count,)),
        "draw": lambda: here.normal(1, (count,)),
        "domain": lambda: here.fork(0).normal(0, (count,)),
    }[axis]()
    assert not torch.equal(a, b)
    assert abs(correlation(a, b)) < 4 / math.sqrt(count)


@pytest.mark.parametrize("lag", [1, 2, 500])
def test_numbers_of_a_row_do_not_correlate(lag):
    x = Noise.keyed(0, rows(0), 0).normal(0, (100_000,))[0]
    assert abs(correlation(x[:-lag], x[lag:])) < 4 / math.sqrt(len(x))


def test_seed_row_and_step_are_not_interchangeable():
    keys = {
        Noise.keyed(a, rows(b), c).key.item() for a in range(9) for b in range(9) for c in range(9)
    }
    assert len(keys) == 9**3


@given(st.lists(KEYS, min_size=1, max_size=6), KEYS, st.integers(0, 100))
def test_a_row_does_not_see_its_batch(indices, seed, step):
    together = Noise.keyed(seed, rows(*indices), step).normal(0, (3, 5))
    for i, index in enumerate(indices):
        assert torch.equal(together[i], Noise.keyed(seed, rows(index), step).normal(0, (3, 5))[0])


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=6))
def test_a_step_for_each_row(steps):
    same = torch.full((len(steps),), 4)
    together = Noise.keyed(1, same, torch.tensor(steps)).uniform(0, (4,))
    for i, step in enumerate(steps):
        assert torch.equal(together[i], Noise.keyed(1, rows(4), step).uniform(0, (4,))[0])


@settings(max_examples=25)
@given(KEYS)
def test_precisions_see_the_same_noise(seed):
    noise = Noise.keyed(seed, torch.arange(3), 0)
    single, double = noise.normal(0, (7,)), noise.normal(0, (7,), torch.float64)
    assert torch.equal(single, double.float())
    u = noise.uniform(0, (7,)).double() - noise.uniform(0, (7,), torch.float64)
    assert float(u.abs().max()) <= 2.0**-24


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_uniforms_stay_below_one_in_every_precision(dtype):
    u = Noise.keyed(0, torch.arange(1000), 0).uniform(0, (1000,), dtype)
    assert u.dtype == dtype
    assert float(u.max()) < 1
    assert abs(float(u.double().mean()) - 0.5) < 0.005


def test_a_longer_draw_of_uniforms_begins_alike():
    noise = Noise.keyed(0, rows(0, 1), 0)
    assert torch.equal(noise.uniform(0, (9,))[:, :4], noise.uniform(0, (4,)))


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_at_some_places_are_those_among_all(shape, dtype):
    noise = Noise.keyed(3, rows(4, 9, 2**40), 7).fork(1)
    at = (torch.tensor([0, 2, 2, 1]), torch.tensor([4, 0, 3, 3]))
    found = noise.uniform(6, shape, dtype, at)
    assert torch.equal(found, noise.uniform(6, shape, dtype)[at])
    nowhere = (at[0][:0], at[1][:0])
    assert noise.uniform(6, shape, dtype, nowhere).shape == (0, *shape[1:])

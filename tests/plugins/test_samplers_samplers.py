"""Samplers on an exact denoiser: their algebra, their order, and what they leave unchanged."""

import functools
import itertools
import math

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.embedding import Corruption
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError
from dlmkit.noise import Noise
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.runner import generate
from dlmkit.testing.markov import MarkovChain, markov_denoise
from dlmkit_cdcd.configs import VarianceExploding
from dlmkit_cdcd.schedules import FixedDensity
from dlmkit_samplers import configs
from dlmkit_samplers.grids import Linear, LogUniform
from dlmkit_samplers.samplers import Ancestral, Euler, Heun

V, L, D = 6, 5, 8
CONTEXT = BuildContext(length=L, vocab_size=V)
CHAIN = MarkovChain.random(V, sharpness=1.5)
DENOISE = markov_denoise(CHAIN, D)
GAUSSIAN = DENOISE.space.corruption
EULER = Euler(configs.Nothing(), CONTEXT)
HEUN = Heun(configs.Nothing(), CONTEXT)
ANCESTRAL = Ancestral(configs.Ancestral(), CONTEXT)
SAMPLERS = [EULER, HEUN, ANCESTRAL, Ancestral(configs.Ancestral(eta=0.5), CONTEXT)]


def free(rows):
    given = torch.zeros(rows, L, dtype=torch.bool)
    return Conditioning(given, torch.zeros(rows, L, D, dtype=torch.float64), ~given)


def bound(rows):
    return lambda x, level, previous: DENOISE(x, level, previous, free(rows))


def level(alpha, sigma, rows):
    return Level(*(torch.full((rows,), float(v), dtype=torch.float64) for v in (alpha, sigma)))


def start(rows, sigma, alpha=1.0, seed=0):
    noise = Noise.keyed(seed, torch.arange(rows), 0)
    return GAUSSIAN.prior(torch.zeros(rows, L, D).double(), level(alpha, sigma, rows), noise)


def step(sampler, x, here, there, number=1):
    noise = Noise.keyed(1, torch.arange(len(x)), number)
    state = sampler.init(x)
    return sampler.step(bound(len(x)), GAUSSIAN, x, here, there, state, noise, DENOISE.start(x))


def solve(sampler, x, sigmas):
    """x after stepping through ``sigmas`` of the VE process."""
    for number, (a, b) in enumerate(itertools.pairwise(sigmas)):
        x, _, _ = step(sampler, x, level(1, a, len(x)), level(1, b, len(x)), number)
    return x


def geometric(high, low, steps):
    return [high * (low / high) ** (i / steps) for i in range(steps + 1)]


def test_euler_is_ddim():
    """x' = alpha' x0 + sigma' noise, the noise being the one that x0 implies (2010.02502)."""
    here, there = level(0.6, 0.8, 3), level(0.9, math.sqrt(0.19), 3)
    x = start(3, 0.8, 0.6)
    moved, prediction, _ = step(EULER, x, here, there)
    noise = (x - 0.6 * prediction.x0_step) / 0.8
    torch.testing.assert_close(moved, 0.9 * prediction.x0_step + math.sqrt(0.19) * noise)


def test_euler_follows_the_score():
    """In VE coordinates one step is dx/dsigma = -sigma score, score = (x0 - x) / sigma^2."""
    x = start(3, 2.0)
    moved, prediction, _ = step(EULER, x, level(1, 2.0, 3), level(1, 1.7, 3))
    score = (prediction.x0_step - x) / 2.0**2
    torch.testing.assert_close(moved, x + (1.7 - 2.0) * (-2.0 * score))


def test_heun_is_algorithm_1_of_edm():
    x = start(3, 2.0)
    moved, first, _ = step(HEUN, x, level(1, 2.0, 3), level(1, 1.5, 3))
    d = (x - first.x0_step) / 2.0
    ahead = x + (1.5 - 2.0) * d
    second = bound(3)(ahead, level(1, 1.5, 3), first.feedback)
    d_ahead = (ahead - second.x0_step) / 1.5
    torch.testing.assert_close(moved, x + (1.5 - 2.0) * 0.5 * (d + d_ahead))


@functools.cache
def reference():
    return solve(HEUN, start(4, 4.0), geometric(4.0, 0.5, 256))


@pytest.mark.parametrize(("sampler", "order"), [(EULER, 1), (HEUN, 2)])
def test_order_of_convergence(sampler, order):
    x = start(4, 4.0)
    exact = reference()

    def error(steps):
        return float((solve(sampler, x, geometric(4.0, 0.5, steps)) - exact).square().mean().sqrt())

    measured = math.log2(error(32) / error(64))
    assert measured == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_to_the_clean_level_lands_on_the_prediction(sampler):
    x = start(4, 1.3, 0.7)
    moved, prediction, _ = step(sampler, x, level(0.7, 1.3, 4), level(1, 0, 4))
    torch.testing.assert_close(moved, prediction.x0_step, rtol=0, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_processes_with_one_ratio_are_one_process(sampler):
    """A VP step is the VE step of x / alpha."""
    here, there = (0.6, 0.8), (0.8, 0.6)
    x = start(4, 0.8, 0.6)
    vp, _, _ = step(sampler, x, level(*here, 4), level(*there, 4))
    ve, _, _ = step(sampler, x / 0.6, level(1, 0.8 / 0.6, 4), level(1, 0.6 / 0.8, 4))
    torch.testing.assert_close(vp / 0.8, ve)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_rows_at_different_levels_do_not_meet(sampler):
    """One batch of rows at several places, one of them about to end, is as each row alone."""
    here = Level(torch.ones(3).double(), torch.tensor([3.0, 1.0, 0.2]).double())
    there = Level(torch.ones(3).double(), torch.tensor([2.0, 0.7, 0.0]).double())
    x = start(3, 1.0) * here.sigma[:, None, None]
    together, _, _ = step(sampler, x, here, there)
    for row in range(3):
        one = slice(row, row + 1)
        noise = Noise.keyed(1, torch.tensor([row]), 1)
        alone, _, _ = sampler.step(
            bound(1), GAUSSIAN, x[one], Level(*(v[one] for v in here)),
            Level(*(v[one] for v in there)), (), noise, DENOISE.start(x[one]),
        )  # fmt: skip
        torch.testing.assert_close(together[one], alone)


def test_ancestral_without_noise_is_euler():
    still = Ancestral(configs.Ancestral(eta=0.0), CONTEXT)
    x = start(4, 2.0)
    here, there = level(1, 2.0, 4), level(1, 1.2, 4)
    torch.testing.assert_close(step(still, x, here, there)[0], step(EULER, x, here, there)[0])


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ancestral_keeps_the_marginal_given_x0(eta):
    """From x at s about a known x0, x' has mean x0 and standard deviation s'."""
    sampler = Ancestral(configs.Ancestral(eta=eta), CONTEXT)
    ids = torch.zeros(4000, L, dtype=torch.int64)
    given = torch.ones_like(ids, dtype=torch.bool)
    x0 = DENOISE.space.embed(ids)
    known = Conditioning.of(x0, given, given)
    x = x0 + 2.0 * Noise.keyed(0, torch.arange(4000), 0).normal(0, (L, D), torch.float64)
    moved, _, _ = sampler.step(
        lambda x, level, previous: DENOISE(x, level, previous, known),
        GAUSSIAN, x, level(1, 2.0, 4000), level(1, 1.2, 4000), (),
        Noise.keyed(0, torch.arange(4000), 1), DENOISE.start(x),
    )  # fmt: skip
    n = x.numel()
    assert abs(float((moved - x0).mean())) < 4 * 1.2 / math.sqrt(n)
    assert float((moved - x0).std()) == pytest.approx(1.2, abs=4 * 1.2 / math.sqrt(2 * n))


def drawn(sampler, grid, steps, n=1000):
    """``n`` texts from the chain's exact denoiser."""
    times = VarianceExploding(t_min=0.05, t_max=20.0, density="log-uniform")
    schedule = FixedDensity(times, CONTEXT)
    parts = SamplingParts(DENOISE.space, schedule, DENOISE, sampler, grid)
    samples = generate(parts, unconditional(n, L), seed=0, steps=steps, batch_size=n, length=L)
    return torch.tensor([sample.ids for sample in samples])


def transition_distance(ids):
    """Total variation between the pairs of neighbouring tokens in ``ids`` and the chain's."""
    pairs = ids[:, :-1] * V + ids[:, 1:]
    found = torch.bincount(pairs.flatten(), minlength=V * V) / pairs.numel()
    return float((found - (CHAIN.initial[:, None] * CHAIN.transition).flatten()).abs().sum() / 2)


@pytest.mark.parametrize(("sampler", "steps"), [(EULER, 64), (HEUN, 24), (ANCESTRAL, 64)])
def test_samples_follow_the_chain(sampler, steps):
    """Their NLL is the entropy, and their transitions are the chain's, within error."""
    ids = drawn(sampler, LogUniform(configs.Nothing(), CONTEXT), steps)
    nll = CHAIN.nll(ids)
    error = 3 * float(nll.std()) / math.sqrt(len(nll))
    assert float(nll.mean()) == pytest.approx(CHAIN.entropy(L), abs=0.02 + error)
    assert transition_distance(ids) < 0.06


def test_a_bad_grid_does_not_follow_the_chain():
    """The test above can fail: four even steps jump over the noise levels that matter."""
    assert transition_distance(drawn(EULER, Linear(configs.Nothing(), CONTEXT), 4)) > 0.12


class Discrete(Corruption):
    def corrupt(self, x0, level, noise):
        return x0

    def prior(self, like, level, noise):
        return like

    def input(self, x, level):
        return x


@pytest.mark.parametrize("sampler", SAMPLERS[:3])
def test_other_noise_is_refused(sampler):
    x = start(1, 1.0)
    with pytest.raises(RecipeError, match=r"Gaussian noise alone.*Discrete"):
        sampler.step(
            bound(1), Discrete(), x, level(1, 1, 1), level(1, 0, 1), (),
            Noise.keyed(0, torch.arange(1), 0), DENOISE.start(x),
        )  # fmt: skip

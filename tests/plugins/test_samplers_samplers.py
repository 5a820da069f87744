"""Samplers on an exact denoiser: their algebra, their order, and what they leave unchanged."""

import functools
import itertools
import math

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.network import Conditioning
from dlmkit.core.options import Nothing
from dlmkit.core.sampler import Step, TwoStageSampler
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.runner import generate
from dlmkit.testing.markov import MarkovChain, markov_denoise
from dlmkit_cdcd.configs import VarianceExploding
from dlmkit_cdcd.schedules import FixedDensity
from dlmkit_samplers import configs
from dlmkit_samplers.grids import Linear, LogUniform
from dlmkit_samplers.multistep import DPM2M, DPM2MSDE, DPM3M, History, UniPC
from dlmkit_samplers.samplers import Ancestral, EDMChurn, Euler, Heun

V, L, D = 6, 5, 8
CONTEXT = BuildContext(length=L, vocab_size=V)
CHAIN = MarkovChain.random(V, sharpness=1.5)
DENOISE = markov_denoise(CHAIN, D)
GAUSSIAN = DENOISE.space.corruption
STEPS = 10
"""Points of the grid that samplers are told."""
EULER = Euler(Nothing(), CONTEXT)
HEUN = Heun(Nothing(), CONTEXT)
ANCESTRAL = Ancestral(configs.Ancestral(), CONTEXT)
TWO, THREE, UNIPC = (kind(configs.Multistep(), CONTEXT) for kind in (DPM2M, DPM3M, UniPC))
SDE = DPM2MSDE(configs.MultistepSDE(), CONTEXT)
CHURN = EDMChurn(configs.EDMChurn(s_churn=20), CONTEXT)
MULTISTEP = [TWO, THREE, UNIPC, SDE]
SAMPLERS = [
    EULER, HEUN, ANCESTRAL, Ancestral(configs.Ancestral(eta=0.5), CONTEXT), *MULTISTEP, CHURN
]  # fmt: skip


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
    now = Step.between(x, here, there, noise, DENOISE.start(x), steps=STEPS)
    return sampler.step(bound(len(x)), x, now, state)


def solve(sampler, x, sigmas):
    """x after stepping through ``sigmas`` of the VE process."""
    return walk(sampler, x, sigmas, sampler.init(x))[0]


def walk(sampler, x, sigmas, state, denoise=None):
    """(x after stepping through ``sigmas``, the last state)."""
    denoise = denoise or bound(len(x))
    for number, (a, b) in enumerate(itertools.pairwise(sigmas)):
        noise = Noise.keyed(1, torch.arange(len(x)), number)
        here, there = level(1, a, len(x)), level(1, b, len(x))
        now = Step.between(x, here, there, noise, DENOISE.start(x), number, STEPS)
        x, _, state = sampler.step(denoise, x, now, state)
    return x, state


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
    return solve(UNIPC, start(4, 4.0), geometric(4.0, 0.5, 256))


STILL = [
    (EULER, 1),
    (HEUN, 2),
    (Ancestral(configs.Ancestral(eta=0.0), CONTEXT), 1),
    (TWO, 2),
    (UNIPC, 3),
    (DPM2MSDE(configs.MultistepSDE(eta=0.0), CONTEXT), 2),
    (EDMChurn(configs.EDMChurn(s_churn=0.0), CONTEXT), 2),
]
"""Every sampler without noise of its own, and its order. DPM3M starts at first order: see below."""


@pytest.mark.parametrize(("sampler", "order"), STILL)
def test_order_of_convergence(sampler, order):
    """By halving the steps: the error falls by 2^order."""
    x, exact = start(4, 4.0), reference()

    def error(steps):
        return float((solve(sampler, x, geometric(4.0, 0.5, steps)) - exact).square().mean().sqrt())

    assert math.log2(error(32) / error(64)) == pytest.approx(order, abs=0.25)


def test_three_steps_converge_at_order_3_once_started():
    """Given the two predictions before the first step, which one step of first order spoils."""
    fine = geometric(8.0, 4.0, 48)
    at, x = {}, start(4, 8.0)
    state = UNIPC.init(x)
    for a, b in itertools.pairwise(fine):
        x, state = walk(UNIPC, x, [a, b], state)
        at[round(math.log(b / 4.0) / math.log(2.0) * 48)] = bound(4)(
            x, level(1, b, 4), DENOISE.start(x)
        ).x0_step
    exact = solve(UNIPC, x, geometric(4.0, 0.5, 192))

    def error(steps):
        h, stride = math.log(8.0) / steps, 144 // steps
        old = torch.full((4, 1, 1), h, dtype=torch.float64)
        history = History(torch.full((4, 1, 1), 2), (at[stride], at[2 * stride]), (old, old))
        found, _ = walk(THREE, x, geometric(4.0, 0.5, steps), history)
        return (found - exact).square().mean().sqrt()

    assert math.log2(float(error(24) / error(48))) == pytest.approx(3, abs=0.35)


def polynomial(*coefficients):
    """A denoiser whose x0 is a polynomial in ln s, whatever x is."""

    def denoise(x, level, previous):
        log_s = level.like(x).sigma.log()
        x0 = sum(c * log_s**k for k, c in enumerate(coefficients)) + torch.zeros_like(x)
        return Prediction(x0, x[..., :1], x[..., 0], x0, x0)

    return denoise


def exact_solution(coefficients, x, s, s_next):
    """x at s_next by the integral s_next / s x + s_next int x0(t) / t^2 dt, on a fine grid."""
    t = torch.linspace(s_next, s, 200_001, dtype=torch.float64)
    values = sum(c * t.log() ** k for k, c in enumerate(coefficients)) / t**2
    return s_next / s * x + s_next * torch.trapezoid(values, t)


@pytest.mark.parametrize(
    ("sampler", "coefficients"), [(TWO, (0.7,)), (THREE, (0.7, -0.4, 0.3)), (UNIPC, (0.7,))]
)
def test_multistep_is_exact_for_polynomials_of_its_degree(sampler, coefficients):
    """At unequal steps, from the step on at which the history is full."""
    x, sigmas = start(2, 3.0), [3.0, 2.2, 1.9, 1.3, 0.8]
    denoise = polynomial(*coefficients)
    before, state = walk(sampler, x, sigmas[:4], sampler.init(x), denoise)
    after, _ = walk(sampler, before, sigmas[3:], state, denoise)
    torch.testing.assert_close(
        after, exact_solution(coefficients, before, 1.3, 0.8), rtol=1e-8, atol=1e-8
    )


def test_unipc_corrects_by_the_parabola():
    """Its next x starts from the exact x of a quadratic x0, whatever x was predicted."""
    coefficients, x, sigmas = (0.7, -0.4, 0.3), start(2, 3.0), [3.0, 2.2, 1.9, 1.3, 0.8]
    denoise = polynomial(*coefficients)
    before, state = walk(UNIPC, x, sigmas[:4], UNIPC.init(x), denoise)
    _, after = walk(UNIPC, before, sigmas[3:], state, denoise)
    exact = exact_solution(coefficients, state.x, 1.9, 1.3)
    torch.testing.assert_close(after.x, exact, rtol=1e-8, atol=1e-8)


def test_dpm_2m_is_algorithm_2():
    """D = (1 + 1 / 2r) x0 - x0_before / 2r with r = h_before / h (2211.01095)."""
    x, (a, b, c) = start(3, 2.0), (2.0, 1.5, 1.2)
    middle, state = walk(TWO, x, [a, b], TWO.init(x))
    first = bound(3)(x, level(1, a, 3), DENOISE.start(x)).x0_step
    second = bound(3)(middle, level(1, b, 3), DENOISE.start(x)).x0_step
    r = math.log(a / b) / math.log(b / c)
    d = (1 + 1 / (2 * r)) * second - first / (2 * r)
    moved, _ = walk(TWO, middle, [b, c], state)
    torch.testing.assert_close(moved, c / b * middle - (math.exp(-math.log(b / c)) - 1) * d)


@pytest.mark.parametrize("sampler", MULTISTEP)
def test_steep_growth_falls_back_to_first_order_by_row(sampler):
    x = start(2, 2.0)
    _, state = walk(sampler, x, [2.0, 1.9], sampler.init(x))
    here = level(1, 1.9, 2)
    there = Level(torch.ones(2).double(), torch.tensor([1.8, 0.9]).double())
    fresh = sampler.init(x)
    noise = Noise.keyed(1, torch.arange(2), 5)
    now = Step.between(x, here, there, noise, DENOISE.start(x))
    along = [sampler.step(bound(2), x, now, s)[0] for s in (state, fresh)]
    if sampler is UNIPC:  # whose corrected x is another
        return
    torch.testing.assert_close(along[0][1], along[1][1])
    assert not torch.allclose(along[0][0], along[1][0])


@pytest.mark.parametrize("sampler", MULTISTEP)
def test_history_does_not_touch_the_step_to_the_clean_level(sampler):
    x = start(4, 2.0)
    x, state = walk(sampler, x, [2.0, 1.6, 1.3], sampler.init(x))
    noise = Noise.keyed(1, torch.arange(4), 2)
    now = Step.between(x, level(1, 1.3, 4), level(1, 0, 4), noise, DENOISE.start(x))
    moved, prediction, state = sampler.step(bound(4), x, now, state)
    torch.testing.assert_close(moved, prediction.x0_step, rtol=0, atol=0)
    leaves = [t for t in _leaves(state) if t.is_floating_point()]
    assert all(bool(torch.isfinite(leaf).all()) for leaf in leaves)


def _leaves(value):
    return [value] if isinstance(value, torch.Tensor) else [x for v in value for x in _leaves(v)]


def test_churn_is_algorithm_2_of_edm():
    x = start(3, 2.0)
    sampler = EDMChurn(configs.EDMChurn(s_churn=3.0, s_tmin=1.0, s_tmax=3.0, s_noise=1.1), CONTEXT)
    noise = Noise.keyed(1, torch.arange(3), 1)
    up = 2.0 * 1.3
    hat = x + math.sqrt(up**2 - 2.0**2) * 1.1 * noise.normal(0, (L, D), torch.float64)
    moved, _, _ = step(sampler, x, level(1, 2.0, 3), level(1, 1.5, 3))
    expected, _, _ = step(HEUN, hat, level(1, up, 3), level(1, 1.5, 3))
    torch.testing.assert_close(moved, expected)
    outside = start(3, 0.9)
    still = step(sampler, outside, level(1, 0.9, 3), level(1, 0.7, 3))[0]
    torch.testing.assert_close(still, step(HEUN, outside, level(1, 0.9, 3), level(1, 0.7, 3))[0])
    strongest = EDMChurn(configs.EDMChurn(s_churn=1e9), CONTEXT)
    hat = x + 2.0 * noise.normal(0, (L, D), torch.float64)  # s^ is at most sqrt(2) s
    moved, _, _ = step(strongest, x, level(1, 2.0, 3), level(1, 1.5, 3))
    expected, _, _ = step(HEUN, hat, level(1, 2.0 * math.sqrt(2.0), 3), level(1, 1.5, 3))
    torch.testing.assert_close(moved, expected)


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
        levels = (Level(*(v[one] for v in values)) for values in (here, there))
        now = Step.between(x[one], *levels, noise, DENOISE.start(x[one]), steps=STEPS)
        alone, _, _ = sampler.step(bound(1), x[one], now, sampler.init(x[one]))
        torch.testing.assert_close(together[one], alone)


def test_ancestral_without_noise_is_euler():
    still = Ancestral(configs.Ancestral(eta=0.0), CONTEXT)
    x = start(4, 2.0)
    here, there = level(1, 2.0, 4), level(1, 1.2, 4)
    torch.testing.assert_close(step(still, x, here, there)[0], step(EULER, x, here, there)[0])


NOISY = [
    *(Ancestral(configs.Ancestral(eta=eta), CONTEXT) for eta in (0.0, 0.3, 1.0)),
    *(DPM2MSDE(configs.MultistepSDE(eta=eta), CONTEXT) for eta in (0.0, 0.5, 1.0)),
    CHURN,
]


@pytest.mark.parametrize("sampler", NOISY)
def test_fresh_noise_keeps_the_marginal_given_x0(sampler):
    """From x at s about a known x0, x' has mean x0 and standard deviation s'."""
    ids = torch.zeros(4000, L, dtype=torch.int64)
    given = torch.ones_like(ids, dtype=torch.bool)
    x0 = DENOISE.space.embed(ids)
    known = Conditioning.of(x0, given, given)
    x = x0 + 2.0 * Noise.keyed(0, torch.arange(4000), 0).normal(0, (L, D), torch.float64)
    noise, ends = Noise.keyed(0, torch.arange(4000), 1), (level(1, s, 4000) for s in (2.0, 1.2))
    now = Step.between(x, *ends, noise, DENOISE.start(x), steps=STEPS)
    moved, _, _ = sampler.step(lambda *at: DENOISE(*at, known), x, now, sampler.init(x))
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


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [(EULER, 64), (HEUN, 24), (ANCESTRAL, 64), (TWO, 24), (THREE, 24), (UNIPC, 16), (SDE, 48)],
)
def test_samples_follow_the_chain(sampler, steps):
    """Their NLL is the entropy, and their transitions are the chain's, within error."""
    ids = drawn(sampler, LogUniform(Nothing(), CONTEXT), steps)
    nll = CHAIN.nll(ids)
    error = 3 * float(nll.std()) / math.sqrt(len(nll))
    assert float(nll.mean()) == pytest.approx(CHAIN.entropy(L), abs=0.02 + error)
    assert transition_distance(ids) < 0.06


def test_a_bad_grid_does_not_follow_the_chain():
    """The test above can fail: four even steps jump over the noise levels that matter."""
    assert transition_distance(drawn(EULER, Linear(Nothing(), CONTEXT), 4)) > 0.12


class Midpoint(TwoStageSampler):
    """The slope in the middle of the step: a second point that is not the step's end."""

    def second(self, step):
        return Level.of_ratio(torch.sqrt(step.here.ratio * step.next.ratio))

    def slope(self, first, second):
        return second


def test_two_stages_by_hand():
    """The midpoint rule in log noise: x' = x + (s' - s) (x_m - x0(x_m)) / s_m."""
    x, (s, s_next) = start(3, 2.0), (2.0, 1.5)
    moved, first, _ = step(Midpoint(), x, level(1, s, 3), level(1, s_next, 3))
    half = math.sqrt(s * s_next)
    middle = first.x0_step + half / s * (x - first.x0_step)
    second = bound(3)(middle, level(1, half, 3), first.feedback)
    slope = (middle - second.x0_step) / half
    torch.testing.assert_close(moved, x + (s_next - s) * slope)


def test_a_step_may_begin_at_another_level():
    """As churn does: what the step says of ``here`` follows, the rest stays."""
    x, here, there = start(2, 1.0), level(0.6, 0.8, 2), level(1, 0.5, 2)
    before = Step.between(x, here, there, Noise.keyed(0, torch.arange(2), 3), "fed", 3, STEPS)
    after = before.starting(level(0.6, 1.2, 2))
    assert (after.ratio.shape, after.ratio[0].item()) == ((2, 1, 1), 2.0)
    assert (after.here.sigma[0], after.next, after.previous) == (1.2, there, "fed")
    assert after.index.tolist() == [3, 3]
    assert not after.last.any()

"""The exact test-bed against enumeration of every text."""

import itertools
import math

import pytest
import torch

from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.testing.markov import MarkovChain, MarkovNetwork, MarkovSpace, markov_denoise

V, L, D = 3, 4, 5
CHAIN = MarkovChain.random(V, sharpness=1.0, seed=3)
TEXTS = torch.tensor(list(itertools.product(range(V), repeat=L)))


def probability(ids):
    p = CHAIN.initial[ids[:, 0]]
    for a, b in itertools.pairwise(ids.T):
        p = p * CHAIN.transition[a, b]
    return p


def setting(seed=0, rows=4):
    space = MarkovSpace(V, D)
    noise = Noise.keyed(seed, torch.arange(rows), 0)
    ids = CHAIN.sample(rows, L, seed)
    level = Level(
        0.3 + noise.uniform(1, (), torch.float64), 0.2 + 2 * noise.uniform(2, (), torch.float64)
    )
    x = space.corruption.corrupt(space.embed(ids), level, noise)
    return space, ids, level, x


def enumerated(space, x, level, ids, given):
    """Posterior marginals by Bayes' rule over all V^L texts."""
    result = torch.zeros(len(x), L, V, dtype=torch.float64)
    for row in range(len(x)):
        distance = (x[row] - level.alpha[row] * space.table[TEXTS]).square().sum(-1)
        log_like = torch.where(given[row], 0.0, -distance / (2 * level.sigma[row] ** 2)).sum(-1)
        agrees = ((ids[row] == TEXTS) | ~given[row]).all(dim=1)
        weight = probability(TEXTS) * torch.exp(log_like - log_like.max()) * agrees
        for position in range(L):
            result[row, position].index_add_(0, TEXTS[:, position], weight)
    return result / result.sum(-1, keepdim=True)


@pytest.mark.parametrize("given", [[], [0], [1, 2], [3], [0, 1, 2, 3]])
def test_posterior_is_that_of_enumeration(given):
    space, ids, level, x = setting()
    mask = torch.zeros(len(x), L, dtype=torch.bool)
    mask[:, given] = True
    conditioning = Conditioning.of(space.embed(ids), mask, torch.ones_like(mask))
    query = MarkovNetwork(CHAIN, space)(space.corruption.input(x, level), level, conditioning, x)
    torch.testing.assert_close(query.exp(), enumerated(space, x, level, ids, mask))


def test_dropped_conditioning_says_nothing():
    space, ids, level, x = setting()
    given = torch.zeros(len(x), L, dtype=torch.bool)
    given[:, 1] = True
    network = MarkovNetwork(CHAIN, space)
    read = space.corruption.input(x, level)
    dropped = Conditioning.of(space.embed(ids), given, torch.ones_like(given)).dropped()
    first = network(read, level, dropped, x).exp()
    told = Conditioning.of(space.embed(ids), given, torch.ones_like(given))
    assert not torch.allclose(first, network(read, level, told, x).exp())
    other = read.clone()
    other[:, 1] += 7.0
    torch.testing.assert_close(network(other, level, dropped, x).exp(), first)


def test_padding_says_nothing():
    space, ids, level, x = setting()
    attend = torch.ones(len(x), L, dtype=torch.bool)
    attend[:, 3] = False
    conditioning = Conditioning.of(space.embed(ids), torch.zeros_like(attend), attend)
    network = MarkovNetwork(CHAIN, space)
    read = space.corruption.input(x, level)
    short = Conditioning(
        *(part[:, :3] for part in (conditioning.given, conditioning.clean, attend))
    )
    torch.testing.assert_close(
        network(read, level, conditioning, x)[:, :3], network(read[:, :3], level, short, x)
    )


def test_entropy_and_likelihood_are_those_of_enumeration():
    p = probability(TEXTS)
    torch.testing.assert_close(CHAIN.nll(TEXTS) * L, -p.log())
    assert CHAIN.entropy(L) * L == pytest.approx(float(-(p * p.log()).sum()), rel=1e-12)
    assert float(p.sum()) == pytest.approx(1.0, rel=1e-12)


def test_the_chain_is_stationary_and_samples_follow_it():
    torch.testing.assert_close(CHAIN.initial @ CHAIN.transition, CHAIN.initial)
    n = 20_000
    ids = CHAIN.sample(n, L)
    index = (ids * V ** torch.arange(L - 1, -1, -1)).sum(dim=1)
    expected = n * probability(TEXTS)
    counts = torch.bincount(index, minlength=len(TEXTS))
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 80 + 4 * math.sqrt(2 * 80)


def test_the_prediction_is_the_posterior_mean_in_either_precision():
    denoise = markov_denoise(CHAIN, D)
    space, ids, level, x = setting()
    none = torch.zeros(len(x), L, dtype=torch.bool)
    conditioning = Conditioning.of(space.embed(ids), none, ~none)
    exact = enumerated(space, x, level, ids, none) @ space.table
    double = denoise(x, level, denoise.start(x), conditioning)
    torch.testing.assert_close(double.x0_step, exact)
    single = denoise(x.float(), Level(*(v.float() for v in level)), x.float(), conditioning)
    assert single.x0_step.dtype == torch.float32
    torch.testing.assert_close(single.x0_step, exact.float(), rtol=1e-4, atol=1e-4)


def test_nothing_breaks_at_extreme_noise():
    chain = MarkovChain.random(48)
    denoise = markov_denoise(chain)
    ids = chain.sample(3, 24)
    level = Level(torch.ones(3).double(), torch.tensor([1e-3, 1.0, 1e4]).double())
    x = denoise.space.corruption.corrupt(
        denoise.space.embed(ids), level, Noise.keyed(0, torch.arange(3), 0)
    )
    none = torch.zeros_like(ids, dtype=torch.bool)
    conditioning = Conditioning.of(denoise.space.embed(ids), none, ~none)
    prediction = denoise(x, level, denoise.start(x), conditioning)
    assert bool(torch.isfinite(prediction.query).all())
    assert torch.equal(prediction.query[0].argmax(-1), ids[0])
    marginal = prediction.query[2].exp()
    torch.testing.assert_close(marginal, chain.initial.expand(24, -1), rtol=0, atol=2e-3)

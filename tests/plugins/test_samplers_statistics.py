"""The statistics' identities against the plain sums over the vocabulary."""

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit_cdcd.configs import Normalised
from dlmkit_cdcd.space import NormalisedSpace
from dlmkit_samplers import configs
from dlmkit_samplers.statistics import Entropy, Jeffreys, KullbackLeibler

V, L, D, B = 50, 6, 8, 5
CONTEXT = BuildContext(length=L, vocab_size=V)
STATISTICS = {
    kind: kind(configs.Nothing(), CONTEXT) for kind in (Entropy, KullbackLeibler, Jeffreys)
}


def expected(kind, now, before):
    p, r = Categorical(logits=now), Categorical(logits=before)
    if kind is Entropy:
        return p.entropy()
    there = kl_divergence(p, r)
    return there if kind is KullbackLeibler else there + kl_divergence(r, p)


def space(head, dtype=torch.float64):
    torch.manual_seed(0)
    config = Normalised(dim=D, head=head, head_width=None if head == "tied" else D, init_std=1.0)
    return NormalisedSpace(config, CONTEXT).to(dtype)


def predictions(space, scale=1.0, move=1.0):
    torch.manual_seed(1)
    like = space.weight
    q = scale * torch.randn(B, L, D, dtype=torch.float64)
    queries = q, q + move * torch.randn(B, L, D, dtype=torch.float64)
    result = []
    for query in queries:
        query = query.to(like.dtype)
        x0, lse = space.read(query)
        result.append(Prediction(x0, query, lse, x0, x0))
    return result


@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize("kind", STATISTICS)
@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0])
@torch.no_grad()
def test_identities_are_exact(kind, head, scale):
    spot = space(head)
    now, before = predictions(spot, scale)
    value = STATISTICS[kind].per_position(spot, now, before)
    exact = expected(kind, spot.logits(now.query), spot.logits(before.query))
    torch.testing.assert_close(value, exact, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", STATISTICS)
@torch.no_grad()
def test_single_precision_is_good_to_a_few_digits(kind):
    now, before = predictions(space("tied", torch.float32))
    value = STATISTICS[kind].per_position(space("tied", torch.float32), now, before)
    exact = STATISTICS[kind].per_position(space("tied"), *predictions(space("tied")))
    assert float((value - exact).abs().max()) < 2e-4


@torch.no_grad()
def test_jeffreys_does_not_cancel():
    """Two steps a hair apart: in float32 it keeps its digits where KL has lost them all."""
    spot = space("tied", torch.float32)
    now, before = predictions(spot, scale=1.0, move=1e-3)
    exact = expected(
        Jeffreys, spot.double().logits(now.query.double()), spot.logits(before.query.double())
    )
    value = STATISTICS[Jeffreys].per_position(spot.float(), now, before)
    torch.testing.assert_close(value.double(), exact, rtol=2e-2, atol=1e-9)
    kl = STATISTICS[KullbackLeibler].per_position(spot, now, before)
    assert float((kl - exact / 2).abs().max()) > 10 * float((value - exact).abs().max())


@torch.no_grad()
def test_the_mean_is_over_generated_positions():
    spot = space("tied")
    now, before = predictions(spot)
    generated = torch.zeros(B, L, dtype=torch.bool)
    generated[:, :2] = True
    generated[1] = False
    yes = torch.ones(B, dtype=torch.bool)
    value = STATISTICS[Entropy](spot, now, before, yes, generated)
    each = STATISTICS[Entropy].per_position(spot, now, before)
    torch.testing.assert_close(value[[0, 2, 3, 4]], each[[0, 2, 3, 4], :2].mean(dim=1))
    assert value[1] == 0


@pytest.mark.parametrize("kind", [KullbackLeibler, Jeffreys])
@torch.no_grad()
def test_a_first_step_has_no_divergence(kind):
    spot = space("tied")
    now, before = predictions(spot)
    has_before = torch.tensor([True, False, True, True, True])
    value = STATISTICS[kind](spot, now, before, has_before, torch.ones(B, L, dtype=torch.bool))
    assert value[1] == torch.inf
    assert bool(torch.isfinite(value[has_before]).all())


@torch.no_grad()
def test_impossible_tokens_add_nothing():
    """An untied head may rule tokens out; 0 log 0 is 0."""
    from dlmkit.testing.markov import MarkovSpace

    spot = MarkovSpace(3, D)
    logits = torch.tensor([[[0.0, 0.0, -torch.inf]]], dtype=torch.float64)
    x0, lse = spot.read(logits)
    now = Prediction(x0, logits, lse, x0, x0)
    for kind, value in ((Entropy, 0.6931471805599453), (KullbackLeibler, 0.0), (Jeffreys, 0.0)):
        assert float(STATISTICS[kind].per_position(spot, now, now)) == pytest.approx(value)

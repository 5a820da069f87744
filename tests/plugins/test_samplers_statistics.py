"""The statistics' identities against the plain sums over the vocabulary."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.options import Normalised, Nothing, Tokens
from dlmkit.core.points import NormalisedSpace
from dlmkit.core.tokens import TokenSpace
from dlmkit_samplers.statistics import Entropy, Gap, Jeffreys, KullbackLeibler, Margin, Switches

V, L, D, B = 50, 6, 8, 5
CONTEXT = BuildContext(length=L, vocab_size=V)
STATISTICS = {kind: kind(Nothing(), CONTEXT) for kind in (Entropy, KullbackLeibler, Jeffreys)}


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


def test_the_gap_is_that_of_the_two_largest_logits_where_nothing_is_certain():
    logits = torch.tensor([[[3.0, 1.0, 0.0], [0.0, -104.0, -104.0], [0.0, 0.5, 4.5]]])
    spot = TokenSpace(Tokens(dim=2), BuildContext(length=3, vocab_size=3))
    ids, lse = spot.read(logits)
    now, gap = Prediction(ids, logits, lse, ids, ()), Gap(Nothing(), CONTEXT)
    values = gap.per_position(spot, now, now)
    assert values.tolist() == [[2.0, 104.0, 4.0]]
    every = torch.ones(1, 3, dtype=torch.bool)
    assert gap.of_row(values, every).tolist() == [3.0]
    assert gap.of_row(values, values > 50).tolist() == [torch.inf]


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


@pytest.mark.parametrize("kind", [Entropy, KullbackLeibler, Jeffreys, Switches, Margin])
@torch.no_grad()
def test_where_the_statistics_settle(kind):
    """On a text that is certain, and was the step before."""
    from dlmkit.testing.markov import MarkovSpace

    spot = MarkovSpace(V, D)
    logits = torch.full((1, L, V), -60.0, dtype=torch.float64).index_fill(2, torch.tensor(3), 0.0)
    x0, lse = spot.read(logits)
    now = Prediction(x0, logits, lse, x0, x0)
    value = kind(Nothing(), CONTEXT).per_position(spot, now, now)
    torch.testing.assert_close(value, torch.full_like(value, kind.settles_at))


@pytest.mark.parametrize("head", ["tied", "untied"])
@pytest.mark.parametrize("told", [False, True])
@torch.no_grad()
def test_switches_and_margin_are_those_of_the_full_distributions(head, told):
    spot = space(head)
    now, before = predictions(spot, scale=2.0, move=0.5)
    if told:  # the sampling loop has found the likeliest tokens already
        now, before = (replace(p, top=spot.prepared().top(p.query)) for p in (now, before))
    generated = torch.arange(L) < torch.tensor([[L], [2], [0], [L], [3]])
    has_before = torch.tensor([True, True, True, False, True])
    changed = spot.logits(now.query).argmax(-1) != spot.logits(before.query).argmax(-1)
    expected = (changed & generated).sum(dim=1).double()
    expected[3] = torch.inf
    value = Switches(Nothing(), CONTEXT)(spot, now, before, has_before, generated)
    assert torch.equal(value, expected)
    assert 0 < float(value[0]) < L
    first, second = spot.logits(now.query).softmax(-1).topk(2, dim=-1).values.unbind(-1)
    margin = Margin(Nothing(), CONTEXT)
    torch.testing.assert_close(margin.per_position(spot, now, before), first - second)


@pytest.mark.parametrize("kind", [Entropy, KullbackLeibler, Jeffreys])
@torch.no_grad()
def test_floors_are_above_what_rounding_does(kind):
    """Nearly settled rows, as benchmarks/statistic_floors.py draws more of."""
    exact_space, single = space("tied"), space("tied", torch.float32).prepared()
    torch.manual_seed(2)
    query = exact_space.embed(torch.randint(V, (200, 64))) * 25.0 / D
    query += torch.randn_like(query) / D**0.5
    moved = query + 1e-3 * torch.randn_like(query) / D**0.5
    values = []
    for spot, dtype in ((exact_space, torch.float64), (single, torch.float32)):
        both = []
        for q in (query.to(dtype), moved.to(dtype)):
            x0, lse = spot.read(q)
            both.append(Prediction(x0, q, lse, x0, x0))
        yes = torch.ones(200, dtype=torch.bool)
        values.append(STATISTICS[kind](spot, *both, yes, yes[:, None].expand(200, 64)).double())
    noise = float((values[1] - values[0]).abs().max())
    assert 0 < noise < kind.floor[torch.float32]
    assert kind.floor[torch.float64] < kind.floor[torch.float32] < kind.floor[torch.bfloat16]

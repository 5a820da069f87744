"""Interpolated counts against their definition, token by token."""

import itertools
import math

import pytest
import torch

from dlmkit.exact.smoothing import interpolated

V = 4
TEXT = torch.randint(0, V, (400,), generator=torch.Generator().manual_seed(0)).cumsum(0) % V


@pytest.fixture(scope="module")
def counts():
    """Triples of a text in which the third token often repeats the first; floored pairs."""
    text = TEXT.clone()
    text[2::3] = text[:-2:3]
    triples, pairs = torch.zeros(V, V, V).double(), torch.full((V, V), 1e-2).double()
    for a, b, c in zip(text.tolist(), text[1:].tolist(), text[2:].tolist(), strict=False):
        triples[a, b, c] += 1.0
    for a, b in itertools.pairwise(text.tolist()):
        pairs[a, b] += 1.0
    return triples, pairs


def test_it_is_a_distribution(counts):
    found = interpolated(*counts)
    torch.testing.assert_close(found.sum(-1), torch.ones(V, V).double())
    assert (found > 0).all()


def test_weights_make_every_token_likeliest_when_it_is_left_out(counts):
    """By a grid over the weight, for each power of two of the context's count."""
    triples, pairs = counts
    found, lower = interpolated(triples, pairs), pairs / pairs.sum(1, keepdim=True)
    buckets = {}
    for a, b in itertools.product(range(V), repeat=2):
        buckets.setdefault(int(math.log2(triples[a, b].sum())), []).append((a, b))
    assert len(buckets) > 1
    for contexts in buckets.values():
        weights = torch.linspace(0.0, 1.0, 2001)[:-1].double()
        total = torch.zeros_like(weights)
        for a, b in contexts:
            n = triples[a, b].sum()
            for c in range(V):
                if triples[a, b, c]:
                    high = (triples[a, b, c] - 1) / (n - 1)
                    low = (pairs[b, c] - 1) / (pairs[b].sum() - 1)
                    total += triples[a, b, c] * (weights * high + (1 - weights) * low).log()
        best = weights[total.argmax()]
        for a, b in contexts:
            share = triples[a, b] / triples[a, b].sum()
            expected = best * share + (1 - best) * lower[b]
            torch.testing.assert_close(found[a, b], expected, atol=2e-3, rtol=0.0)


def test_a_context_that_never_or_once_occurred_knows_nothing():
    triples, pairs = torch.zeros(2, 2, 2).double(), torch.tensor([[3.0, 1.0], [1.0, 1.0]]).double()
    triples[0, 1, 0] = 1.0
    found = interpolated(triples, pairs)
    lower = pairs / pairs.sum(1, keepdim=True)
    torch.testing.assert_close(found, lower.expand(2, 2, 2))


def test_pairs_are_mixed_with_single_tokens_in_the_same_way(counts):
    """By a grid over the weight of the contexts of one power of two."""
    _, pairs = counts
    pairs = (pairs - 1e-2).round()
    pairs[3] = torch.tensor([0.0, 2.0, 1.0, 0.0])
    single = pairs.sum(0) + 0.5
    found, lower = interpolated(pairs, single), single / single.sum()
    weights, total, n = torch.linspace(0.0, 1.0, 2001)[:-1].double(), 0.0, pairs[3].sum()
    for c in (1, 2):
        high = (pairs[3, c] - 1) / (n - 1)
        low = (single[c] - 1) / (single.sum() - 1)
        total = total + pairs[3, c] * (weights * high + (1 - weights) * low).log()
    best = weights[total.argmax()]
    expected = best * pairs[3] / n + (1 - best) * lower
    torch.testing.assert_close(found[3], expected, atol=2e-3, rtol=0.0)
    torch.testing.assert_close(found.sum(1), torch.ones(V).double())

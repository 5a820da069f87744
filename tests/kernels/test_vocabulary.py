"""The vocabulary step: every form against the plain one, and spaces prepared for a run."""

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.embedding import PreparedSpace
from dlmkit.core.options import Normalised
from dlmkit.core.points import NormalisedSpace
from dlmkit.kernels import vocabulary
from dlmkit.kernels.vocabulary import FORMS, Tables, choose, online, plain

V, L, D, B = 1300, 7, 16, 43
"""Neither a multiple of a block of tokens nor of a block of queries."""
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}


def tables(dtype=torch.float64, tied=True, channels=D, vocab=V):
    torch.manual_seed(0)
    values = torch.nn.functional.normalize(torch.randn(vocab, D, dtype=torch.float64)) * D**0.5
    keys = values if tied else torch.randn(vocab, channels, dtype=torch.float64)
    return Tables(keys, values).to(dtype) if tied else Tables(keys.to(dtype), values.to(dtype))


def queries(scale=2.0, channels=D, dtype=torch.float64):
    torch.manual_seed(1)
    return (scale * torch.randn(B * L, channels, dtype=torch.float64)).to(dtype)


def space(head="tied", dtype=torch.float64):
    torch.manual_seed(0)
    width = None if head == "tied" else 24
    config = Normalised(dim=D, head=head, head_width=width, init_std=1.0)
    return NormalisedSpace(config, BuildContext(length=L, vocab_size=V)).to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("form", ["flash-cpu", "online"])
@torch.no_grad()
def test_tied_forms_agree_with_the_plain_one(form, scale, dtype):
    mean, lse = FORMS[form](queries(scale, dtype=dtype), tables(dtype))
    assert mean.dtype == lse.dtype == dtype
    exact = plain(queries(scale, dtype=dtype).double(), tables(dtype).to(torch.float64))
    for found, expected in zip((mean, lse), exact, strict=True):
        assert float((found - expected).abs().max()) < TOLERANCE[dtype] * max(1.0, scale)


@pytest.mark.parametrize("dtype", TOLERANCE)
@torch.no_grad()
def test_the_online_form_scores_and_averages_in_different_spaces(dtype):
    untied, query = tables(dtype, tied=False, channels=24), queries(channels=24, dtype=dtype)
    exact = plain(query.double(), Tables(untied.keys.double(), untied.values.double()))
    for found, expected in zip(online(query, untied), exact, strict=True):
        assert float((found - expected).abs().max()) < TOLERANCE[dtype]


@torch.no_grad()
def test_half_precision_sums_in_single_precision():
    half = tables(torch.bfloat16, vocab=600)
    query = queries(dtype=torch.bfloat16)[:8]
    exact = plain(query.double(), half.to(torch.float64))
    for form in (vocabulary.flash_cpu, online):
        mean, lse = form(query, half)
        assert mean.dtype == lse.dtype == torch.float32
        assert float((lse - exact[1]).abs().max()) < 0.1
        assert float((mean - exact[0]).abs().max()) < 0.1


def test_the_kernel_is_probed_and_says_why_better_ones_cannot_run():
    assert str(choose(tables())) == "flash-cpu"
    untied = choose(tables(tied=False, channels=24))
    assert str(untied) == "online (flash-cpu: 24 channels are scored and 16 averaged)"
    wide = torch.zeros(3, 257)
    assert str(choose(Tables(wide, wide))) == "online (flash-cpu: 257 channels, at most 256)"


def test_a_kernel_that_is_wrong_here_is_not_used(monkeypatch):
    def shifted(query, tables):
        mean, lse = plain(query, tables)
        return mean, lse + 0.01

    odd = torch.zeros(5, 3)
    assert choose(Tables(odd, odd)).name == "flash-cpu"
    monkeypatch.setitem(FORMS, "flash-cpu", shifted)
    assert choose(Tables(odd, odd)).name == "online"
    assert "differs from the plain form by 0.01" in str(choose(Tables(odd, odd)))


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_gradients_flow_as_through_the_plain_form(head):
    spot = space(head)
    query = queries(channels=spot.query_dim).view(B, L, -1).requires_grad_()

    def gradients(read):
        mean, lse = read(query)
        return torch.autograd.grad((mean.sin().sum() + lse.sum()), [query, *spot.parameters()])

    def by_hand(query):
        p = spot.logits(query).softmax(dim=-1)
        return spot.expect(p), spot.logits(query).exp().sum(dim=-1).log()

    for found, expected in zip(gradients(spot.read), gradients(by_hand), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("head", ["tied", "untied"])
@torch.no_grad()
def test_without_gradients_and_prepared_a_space_says_the_same(head):
    spot = space(head)
    query = queries(channels=spot.query_dim).view(B, L, -1)
    logits = spot.logits(query)
    exact = spot.expect(logits.softmax(dim=-1)), logits.logsumexp(dim=-1)
    ready = spot.prepared()
    assert isinstance(ready, PreparedSpace)
    assert ready.kernel.startswith("flash-cpu" if head == "tied" else "online")
    for one in (spot, ready):
        for found, expected in zip(one.read(query), exact, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one.logits(query), logits)
        assert torch.equal(one.decode(query, query), logits.argmax(dim=-1))
    ids = torch.arange(L * B).view(B, L)
    assert torch.equal(ready.embed(ids), spot.embed(ids))
    assert torch.equal(ready.expect(logits.softmax(dim=-1)), exact[0])


@torch.no_grad()
def test_nothing_goes_stale():
    """A space that is not prepared sees every change of its weights; a new preparation too."""
    spot = space()
    query = queries().view(B, L, -1)
    before, ready = spot.read(query)[1], spot.prepared()
    spot.weight += 1.0
    assert float((spot.read(query)[1] - before).abs().max()) > 0.1
    assert torch.equal(ready.read(query)[1], before)
    assert torch.equal(spot.prepared().read(query)[1], spot.read(query)[1])


@pytest.mark.parametrize("head", ["tied", "untied"])
@torch.no_grad()
def test_the_two_likeliest_tokens(head):
    spot = space(head)
    query = queries(channels=spot.query_dim).view(B, L, -1)
    query[0] = 0.0  # every token ties: the first one wins
    values, ids = spot.logits(query).topk(2, dim=-1)
    for one in (spot, spot.prepared()):
        found = one.top(query)
        assert torch.equal(found.ids[1:], ids[1:, :, 0])
        assert bool((found.ids[0] == 0).all())
        torch.testing.assert_close(torch.stack(found[1:], dim=-1), values)


@torch.no_grad()
def test_a_text_is_read_alike_in_every_slot():
    """Bitwise, at one batch shape: where a row stands among its neighbours says nothing."""
    ready = space(dtype=torch.float32).prepared()
    query = queries(dtype=torch.float32).view(B, L, -1)
    order = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(ready.read(query[order]), ready.read(query), strict=True):
        assert torch.equal(found, expected[order])


@pytest.fixture
def one_thread():
    """Every thread has a workspace of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
@pytest.mark.usefixtures("one_thread")
def test_no_tensor_of_the_vocabularys_size():
    from torch.profiler import ProfilerActivity, profile

    ready = space(dtype=torch.float32).prepared()
    query = queries(dtype=torch.float32).view(B, L, -1)
    ready.read(query)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        ready.read(query)
    largest = max(event.cpu_memory_usage for event in seen.events())
    assert 0 < largest < B * L * V * 4 / 10

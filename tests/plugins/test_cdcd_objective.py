"""The space, the maskings and the objective of `cdcd` against exact values."""

import math
from dataclasses import replace

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise
from dlmkit.core.masking import Masking
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.options import Normalised, Nothing
from dlmkit.core.points import NormalisedSpace
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit_cdcd import configs
from dlmkit_cdcd.masking import MixedMasking, NoMasking, PrefixMasking, RandomMasking
from dlmkit_cdcd.network import Transformer
from dlmkit_cdcd.objective import ScoreInterpolation
from dlmkit_cdcd.schedules import FixedDensity

V, L, D, B = 11, 9, 6, 8
CONTEXT = BuildContext(length=L, vocab_size=V, pad_id=0, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def space(**options):
    torch.manual_seed(0)
    config = Normalised(dim=D, **({"init_std": 1.0} | options))
    return NormalisedSpace(config, CONTEXT).double()


class Oracle(ScoreNetwork):
    """The exact posterior of one position under a uniform prior, as a query of the tied head.

    logits = q . e must equal x . e / t^2, so q = x / t^2; the constant |e|^2 / 2 cancels.
    """

    seen: list

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, level, conditioning, previous):
        self.seen.append((x, conditioning, previous))
        t = level.sigma[:, None, None]
        return x * (t * t + 1.0).sqrt() / (t * t)

    def shard_units(self):
        return []


class Fixed(Masking):
    def __init__(self, given):
        self.given = given

    def draw(self, attend, noise):
        return self.given & attend


def objective(masking, embedding=None, network=None, **options):
    embedding = embedding or space()
    schedule = FixedDensity(configs.VarianceExploding(t_min=0.8, t_max=4.0), CONTEXT)
    parts = {
        "space": embedding,
        "schedule": schedule,
        "network": network or Oracle(),
        "masking": masking,
    }
    return ScoreInterpolation(configs.ScoreInterpolation(**options), replace(CONTEXT, parts=parts))


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, V, (B, L), generator=generator)
    attend = torch.arange(L)[None] < torch.tensor([L, L, L, L, 5, 6, 1, L])[:, None]
    return Batch(torch.where(attend, ids, 0), attend)


def draws(step=0):
    u = torch.linspace(0.05, 0.95, B, dtype=torch.float64)
    return Draws(u, Noise.keyed(3, torch.arange(B), step))


def test_clean_inputs_and_expected_embeddings_share_one_scale():
    points = space()
    ids = torch.arange(V)[None]
    one_hot = torch.eye(V, dtype=torch.float64)[None]
    torch.testing.assert_close(points.expect(one_hot), points.embed(ids))
    norms = points.embed(ids).norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, math.sqrt(D)))
    sharp = points.read(1e4 * points.embed(ids))[0]
    torch.testing.assert_close(sharp, points.embed(ids))


def test_gradient_flows_through_the_normalisation():
    points = space(init_std=1e-3)
    (points.embed(torch.arange(V)[None]).sum(-1) * torch.arange(V)).sum().backward()
    gradient = points.weight.grad
    assert (gradient.norm(dim=1)[1:] > 0).all()
    radial = (gradient * points.weight).sum(1)
    torch.testing.assert_close(radial, torch.zeros_like(radial), atol=1e-6, rtol=0)


def test_untied_head_has_its_own_matrix():
    points = space(head="untied", head_width=4)
    assert points.query_dim == 4
    assert points.logits(torch.randn(2, 3, 4, dtype=torch.float64)).shape == (2, 3, V)


def test_interpolated_score_is_the_gradient_of_the_mixture_density():
    """(x0_hat - x) / t^2 against autograd of log sum_v N(x; e_v, t^2 I)."""
    points = space()
    x = torch.randn(2, L, D, dtype=torch.float64, requires_grad=True)
    for t in (0.7, 2.0, 9.0):
        level = Level(torch.ones(2, dtype=torch.float64), torch.full((2,), t, dtype=torch.float64))
        distance = (x[..., None, :] - points.table()).square().sum(-1)
        density = torch.logsumexp(-distance / (2 * t * t), dim=-1).sum()
        (score,) = torch.autograd.grad(density, x)
        given = torch.zeros(2, L, dtype=torch.bool)
        conditioning = Conditioning.of(torch.zeros_like(x), given, ~given)
        denoise = ModelDenoise(points, Oracle())
        x0 = denoise(x, level, denoise.start(x), conditioning).x0_step
        torch.testing.assert_close((x0 - x) / t**2, score, atol=1e-9, rtol=1e-9)


def test_loss_is_the_cross_entropy_of_the_noised_positions_only():
    given = torch.rand(B, L, generator=torch.Generator().manual_seed(1)) < 0.4
    given[:, 0] = False
    loss = objective(Fixed(given), self_conditioning=0.0, conditioning_dropout=0.0)
    rows, drawn = batch(), draws()
    parts = loss(rows, drawn)
    # by hand: the same x, the exact posterior, positions one by one
    x0 = loss.space.embed(rows.ids)
    t = 0.8 + drawn.u * 3.2
    x = x0 + t[:, None, None] * drawn.noise.fork(0).normal(0, (L, D), torch.float64)
    total, count = 0.0, 0
    for b in range(B):
        for i in range(L):
            if rows.attend[b, i] and not given[b, i]:
                scores = loss.space.table() @ x[b, i] / t[b] ** 2
                total -= scores.log_softmax(0)[rows.ids[b, i]].item()
                count += 1
    assert parts.count.item() == count
    assert parts.loss_sum.item() == pytest.approx(total, rel=1e-5)
    assert torch.equal(parts.unconditional, ~(given & rows.attend).any(1))
    torch.testing.assert_close(parts.pdf, torch.full((B,), 1 / 3.2, dtype=torch.float64))


def test_given_positions_and_padding_do_not_enter_the_loss():
    given = torch.zeros(B, L, dtype=torch.bool)
    given[:4, 3:7] = True
    rows = batch()
    swapped = torch.where(given | ~rows.attend, (rows.ids + 3) % V, rows.ids)
    loss = objective(Fixed(given), self_conditioning=0.0)
    a, b = loss(rows, draws()), loss(Batch(swapped, rows.attend), draws())
    torch.testing.assert_close(a.per_row, b.per_row)


def test_self_conditioning_feeds_the_first_rows_their_own_prediction():
    network = Oracle()
    loss = objective(Fixed(torch.zeros(B, L, dtype=torch.bool)), network=network)
    loss(batch(), draws())
    first, second = network.seen
    assert len(first[0]) == B // 2
    previous = second[2]
    assert not previous.requires_grad
    assert (previous[: B // 2].abs().sum((1, 2)) > 0).all()
    assert (previous[B // 2 :] == 0).all()


def test_conditioning_dropout_zeroes_clean_embeddings_and_keeps_the_mask():
    given = torch.ones(B, L, dtype=torch.bool)
    given[:, -1] = False
    network = Oracle()
    loss = objective(Fixed(given), network=network, conditioning_dropout=1.0)
    loss(batch(), draws())
    assert (network.seen[-1][1].clean == 0).all()
    assert network.seen[-1][1].given.any()


@pytest.mark.parametrize("kind", [NoMasking, PrefixMasking, RandomMasking])
def test_masks_keep_one_noised_token_and_never_give_padding(kind):
    options = {
        NoMasking: Nothing,
        PrefixMasking: Nothing,
        RandomMasking: Nothing,
    }[kind]()
    rows = 4000
    attend = torch.arange(L)[None] < (torch.arange(rows) % L + 1)[:, None]
    given = kind(options, CONTEXT).draw(attend, Noise.keyed(0, torch.arange(rows), 0))
    assert not (given & ~attend).any()
    assert ((attend & ~given).sum(1) >= 1).all()
    full = attend.all(1)
    counts = torch.bincount(given[full].sum(1), minlength=L).double()
    if kind is NoMasking:
        assert counts[0] == counts.sum()
    else:
        expected = counts.sum() / L
        assert ((counts - expected).square() / expected).sum() < 27.9  # chi-square, 8 df, 0.05 %
    if kind is PrefixMasking:
        assert (given.int().diff(dim=1) <= 0).all()


def test_mix_uses_each_part_by_its_share_and_row_by_row():
    parts = [Part(use="none"), Part(use="prefix")]
    builders = {
        "none": lambda c: NoMasking(Nothing(), c),
        "prefix": lambda c: PrefixMasking(Nothing(), c),
    }
    context = replace(CONTEXT, build=lambda kind, part: builders[part.use](CONTEXT))
    mix = MixedMasking(configs.Mix(parts=parts, weights=[3.0, 1.0]), context)
    attend = torch.ones(8000, L, dtype=torch.bool)
    keys = torch.arange(8000)
    given = mix.draw(attend, Noise.keyed(0, keys, 0))
    share = given.any(1).double().mean().item()
    assert share == pytest.approx(0.25 * (1 - 1 / L), abs=0.02)
    later = mix.draw(attend[:100], Noise.keyed(0, keys[5000:5100], 0))
    assert torch.equal(later, given[5000:5100])


def network(**options):
    torch.manual_seed(1)
    config = configs.Transformer(width=16, blocks=2, heads=2, time_features=8, **options)
    context = replace(CONTEXT, parts={"space": space()})
    built = Transformer(config, context).double()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built


def run(built, seed=0, rows=B):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    attend = batch().attend
    given = (torch.rand(B, L, generator=generator) < 0.3) & attend
    conditioning = Conditioning.of(normal(B, L, D), given, attend)
    sigma = torch.linspace(1, 9, B, dtype=torch.float64)
    values = (normal(B, L, D), Level(torch.ones_like(sigma), sigma), conditioning, normal(B, L, D))
    return values, attend


def test_network_ignores_padding_and_neighbouring_rows():
    built = network()
    (x, level, conditioning, previous), attend = run(built)
    reference = built(x, level, conditioning, previous)
    noise = torch.where(attend[..., None], 0.0, 5.0)
    padded = built(x + noise, level, conditioning, previous + noise)
    torch.testing.assert_close(padded[attend], reference[attend])
    swapped = x.clone()
    swapped[0] += 1.0
    other = built(swapped, level, conditioning, previous)
    torch.testing.assert_close(other[1:], reference[1:])
    assert not torch.allclose(other[0], reference[0])


def test_network_reads_neither_x_nor_previous_at_given_positions():
    built = network()
    (x, level, conditioning, previous), attend = run(built)
    bump = torch.where(conditioning.given[..., None], 7.0, 0.0)
    torch.testing.assert_close(
        built(x + bump, level, conditioning, previous + bump)[attend],
        built(x, level, conditioning, previous)[attend],
    )


def test_fresh_network_predicts_the_uniform_distribution():
    torch.manual_seed(0)
    context = replace(CONTEXT, parts={"space": space()})
    built = Transformer(configs.Transformer(width=16, blocks=1, heads=2), context).double()
    values, _ = run(built)
    assert (built(*values) == 0).all()


@pytest.mark.parametrize("query_bias", [True, False])
def test_with_query_bias_a_head_that_reads_nothing_still_tells_offsets(query_bias):
    torch.manual_seed(0)
    config = configs.Transformer(width=16, blocks=1, heads=2, query_bias=query_bias)
    context = replace(CONTEXT, parts={"space": space()})
    network = Transformer(config, context).double()
    block = network.blocks[0]
    with torch.no_grad():
        block.qkv.weight[:32] = 0
    h = torch.randn(1, L, 16, dtype=torch.float64)
    swapped = h[:, [0, 2, 1, *range(3, L)]]
    time, attend = torch.zeros(1, 1, 128, dtype=torch.float64), torch.ones(1, L, dtype=torch.bool)
    before, after = (block(each, time, network.rotation, attend)[0, 0] for each in (h, swapped))
    assert bool((before - after).abs().max() > 1e-6) is query_bias


def test_rotation_makes_scores_relative():
    from dlmkit.core.layers import rotate, rotation_table

    table = rotation_table(20, 8, 10000.0).double()
    q, k = torch.randn(8).double(), torch.randn(8).double()
    rows = [x.expand(1, 20, 1, 8) for x in (q, k)]
    a, b = (rotate(x, table)[0, :, 0] for x in rows)
    scores = a @ b.T
    angles = torch.arange(20)[:, None] * 10000.0 ** (-torch.arange(0, 8, 2) / 8)
    turned = torch.polar(torch.ones_like(angles), angles) * torch.complex(q[:4], q[4:])
    torch.testing.assert_close(a, torch.cat((turned.real, turned.imag), dim=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(scores.diagonal(3), scores[0, 3].expand(17), rtol=0, atol=5e-6)


def test_a_model_trained_without_self_conditioning_is_never_shown_a_prediction():
    x, x0 = torch.randn(B, L, D, dtype=torch.float64), space().embed(batch().ids)
    nothing = Conditioning.of(x0, torch.zeros(B, L, dtype=torch.bool), batch().attend)
    level = Level(torch.ones(B), torch.full((B,), 2.0))
    for share, shown in ((0.0, False), (0.5, True)):
        network = Oracle()
        denoise = objective(
            NoMasking(Nothing(), CONTEXT), network=network, self_conditioning=share
        ).denoise()
        first = denoise(x, level, denoise.start(x), nothing)
        denoise(x, level, first.feedback, nothing)
        assert bool(network.seen[1][2].any()) is shown


def test_a_denoiser_is_prepared_whether_or_not_it_is_shown_predictions():
    other = Oracle()
    for share in (0.0, 0.5):
        denoise = objective(
            NoMasking(Nothing(), CONTEXT), network=Oracle(), self_conditioning=share
        ).denoise()
        prepared = denoise.prepared(denoise.space.prepared(), lambda network: other)
        assert prepared.network is other
        assert prepared.feedback is denoise.feedback
        assert denoise.network is not other

"""CANDI: its sigma, its likelihood, its loss and its sampler against sums and other objectives."""

import itertools

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.options import Dropping, Nothing, Tokens
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace, masked_share
from dlmkit.exact import bayes
from dlmkit.noise import Noise
from dlmkit_candi.model import HybridCrossEntropy, HybridDenoise, HybridSampler, HybridSpace
from dlmkit_candi.plugin import Hybrid
from dlmkit_cdcd.masking import NoMasking
from dlmkit_mdlm import configs as mdlm
from dlmkit_mdlm.objective import MaskedBound
from dlmkit_mdlm.schedule import LogLinear

V, L = 5, 3


class Answers(ScoreNetwork):
    """Says what it was given."""

    def __init__(self, output):
        super().__init__()
        self.output, self.unused = output, torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, level, conditioning, previous):
        return self.output + self.unused

    def shard_units(self):
        return ()


@pytest.fixture
def context():
    torch.manual_seed(0)
    bare = BuildContext(length=L, vocab_size=V)
    parts = {
        "space": HybridSpace(Hybrid(dim=4), bare),
        "schedule": LogLinear(mdlm.LogLinear(), bare),
        "masking": NoMasking(Nothing(), bare),
    }
    return BuildContext(length=L, vocab_size=V, parts=parts)


def level_of(share, n):
    share = torch.full((n,), share)
    return Level(1.0 - share, share)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_sigma_gives_the_right_token_its_rank(context, share):
    corruption, n = context.part("space").corruption, 200_000
    sigma = float(corruption.sigma(level_of(share, 1)))
    x = torch.nn.functional.one_hot(torch.zeros(n, dtype=torch.int64), V) + sigma * torch.randn(
        n, V
    )
    rank = (x > x[:, :1]).sum(dim=1).double().mean() / V
    assert float(rank) == pytest.approx(0.01 + 0.24 * share, rel=0.03)


def test_what_x_says_is_bayes_rule_of_a_gaussian_and_of_certainty(context):
    space = context.part("space")
    ids = torch.randint(V, (20, L))
    level, noise = level_of(0.6, 20), Noise.keyed(0, torch.arange(20), 0)
    x = space.corruption.corrupt(space.embed(ids), level, noise)
    said = bayes.log_likelihood(space, x, level).softmax(dim=-1)
    normal = torch.distributions.Normal(torch.eye(V), float(space.corruption.sigma(level)[0]))
    known = space.settled(x)
    assert 0.3 < known.float().mean() < 0.5
    for row, i in itertools.product(range(20), range(L)):
        expected = normal.log_prob(x[row, i, :-1]).sum(dim=-1).softmax(dim=-1)
        if known[row, i]:
            expected = torch.eye(V)[ids[row, i]]
        torch.testing.assert_close(said[row, i], expected, atol=1e-5, rtol=1e-4)


def test_loss_is_mdlms_where_as_many_tokens_are_lost(context):
    n = 300
    ids, slots = torch.randint(V, (n, L)), torch.arange(n)
    bare = BuildContext(length=L, vocab_size=V)
    parts = {**context.parts, "network": Answers(torch.randn(n, L, V))}
    masked = {**parts, "space": TokenSpace(Tokens(dim=4), bare)}
    batch = Batch(ids, ids >= 0)
    draws = Draws((slots + 0.5) / n, Noise.keyed(0, slots, 0))
    hybrid = HybridCrossEntropy(Dropping(), BuildContext(length=L, vocab_size=V, parts=parts))
    bound = MaskedBound(Dropping(), BuildContext(length=L, vocab_size=V, parts=masked))
    found, expected = hybrid(batch, draws), bound(batch, draws)
    middle = expected.unconditional  # its terms at the ends aside
    gap = found.per_row - 0.999 * 0.999 * expected.per_row  # m rises by that in its middle
    torch.testing.assert_close(gap[middle], 0 * gap[middle], atol=1e-3, rtol=0)


def test_a_position_is_drawn_at_its_share_and_stays(context):
    space, n = context.part("space"), 4000
    sampler = HybridSampler(Nothing(), context)
    p = torch.tensor([0.5, 0.2, 0.1, 0.15, 0.05])
    denoise = HybridDenoise(space, Answers(p.log().expand(n, L, V)), feedback=False)
    x = space.corruption.prior(
        space.embed(torch.zeros(n, L, dtype=torch.int64)),
        level_of(1.0, n),
        Noise.keyed(1, torch.arange(n), 9),
    )
    nothing = torch.zeros(n, L, dtype=torch.bool)
    known = Conditioning.of(torch.zeros(n, L, 4), nothing, ~nothing)
    for i, (here, after) in enumerate(itertools.pairwise([0.999, 0.6, 0.2, 0.0])):
        here, after = level_of(here, n), level_of(after, n)
        step = Step.between(x, here, after, Noise.keyed(0, torch.arange(n), i))
        before = x
        x, prediction, _ = sampler.step(
            lambda x, at, q: denoise(x, at, denoise.start(x), known), x, step, ()
        )
        stays = space.settled(before)
        assert torch.equal(x[stays], before[stays])
        lost = (~space.settled(x)).float().mean()
        assert float(lost) == pytest.approx(float(masked_share(after)[0]) / 0.999, abs=0.02)
        free = ~space.settled(x)
        flow = p + space.corruption.sigma(after)[0].float() / space.corruption.sigma(here)[
            0
        ].float() * (before[..., :-1] - p)
        torch.testing.assert_close(x[..., :-1][free], flow[free])
    drawn = torch.bincount(space.decode(x, prediction.query).flatten(), minlength=V) / (n * L)
    torch.testing.assert_close(drawn, p, atol=0.015, rtol=0)


def test_the_network_reads_known_tokens_and_half_of_noised_ones(context):
    space = context.part("space")
    ids, level = torch.tensor([[0, 3, 2]]), level_of(0.5, 1)
    clean = space.embed(ids)
    noisy = clean.clone()
    noisy[0, 1, -1] = 0.0
    table = 2.0 * torch.nn.functional.normalize(space.table.weight, dim=-1)
    read = space.corruption.input(noisy, level)[0]
    torch.testing.assert_close(read[0], table[0])
    scale = 0.5 / float(1.0 + space.corruption.sigma(level)[0] ** 2) ** 0.5
    torch.testing.assert_close(read[1], 0.5 * table[-1] + scale * table[3])

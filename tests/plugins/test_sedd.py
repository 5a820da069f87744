"""SEDD: scores, posteriors and steps against sums over all texts, under masks and uniform noise."""

import itertools

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.options import Dropping, Nothing, Tokens
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace, loss_rate, masked_share
from dlmkit.noise import Noise
from dlmkit.testing.markov import MarkovChain
from dlmkit_cdcd.masking import NoMasking
from dlmkit_mdlm import configs as mdlm
from dlmkit_mdlm.objective import MaskedBound
from dlmkit_mdlm.schedule import LogLinear
from dlmkit_sedd.graphs import graph_of
from dlmkit_sedd.parts import GeometricNoise, ScoreEntropy
from dlmkit_sedd.plugin import Geometric
from dlmkit_sedd.sampler import TauLeaping, Tweedie
from dlmkit_uniform import configs as uniform
from dlmkit_uniform.objective import UniformBound
from dlmkit_uniform.space import UniformSpace as States

V, L = 4, 3
CHAIN = MarkovChain.random(V, 1.0)
WORDS = torch.tensor(list(itertools.product(range(V), repeat=L)))
LAW = (-L * CHAIN.nll(WORDS)).exp()


class Answers(ScoreNetwork):
    """Says what it was given."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, level, conditioning, previous):
        return self.output + self.unused

    def shard_units(self):
        return ()


def setting(masked):
    torch.manual_seed(0)
    bare = BuildContext(length=L, vocab_size=V)
    space = TokenSpace(Tokens(dim=4), bare) if masked else States(uniform.States(dim=4), bare)
    parts = {
        "space": space,
        "network": Answers(),
        "schedule": LogLinear(mdlm.LogLinear(), bare),
        "masking": NoMasking(Nothing(), bare),
    }
    return BuildContext(length=L, vocab_size=V, parts=parts)


def kernel(masked, share):
    """q(x | x0), (V, states)."""
    stays = (1.0 - share) * torch.eye(V, dtype=torch.float64)
    if masked:
        return torch.cat((stays, torch.full((V, 1), share, dtype=torch.float64)), dim=1)
    return stays + share / V


def marginal(masked, share, x):
    """q(x) of texts ``x`` (N, L) of the chain."""
    q = kernel(masked, share)
    return (LAW[:, None] * q[WORDS[:, None, :], x[None]].prod(dim=-1)).sum(dim=0)


def log_scores(masked, share, x):
    """log q(x with y at i) / q(x), (N, L, V)."""
    found = torch.empty(*x.shape, V, dtype=torch.float64)
    for i, y in itertools.product(range(L), range(V)):
        other = x.clone()
        other[:, i] = y
        found[:, i, y] = (marginal(masked, share, other) / marginal(masked, share, x)).log()
    return found


def states(masked):
    return torch.tensor(list(itertools.product(range(V + masked), repeat=L)))


def output(masked, share, x):
    """What the network has to say for those scores."""
    scale = torch.tensor(V * share / (1.0 - share)).log() if masked else 0.0
    return (log_scores(masked, share, x) + scale).float()


def given(space, x):
    return Conditioning.of(space.table(x), torch.zeros_like(x, dtype=torch.bool), x >= 0)


def level_of(share, n):
    share = torch.full((n,), share, dtype=torch.float64)
    return Level(1.0 - share, share)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("share", [0.9, 0.3])
def test_exact_scores_give_the_exact_posterior_of_every_token(masked, share):
    context = setting(masked)
    x, q = states(masked), kernel(masked, share)
    context.part("network").output = output(masked, share, x)
    denoise = ScoreEntropy(Dropping(), context).denoise()
    space = context.part("space")
    said = denoise(x, level_of(share, len(x)), denoise.start(x), given(space, x))
    joint = LAW[:, None] * q[WORDS[:, None, :], x[None]].prod(dim=-1)
    for i, v in itertools.product(range(L), range(V)):
        expected = joint[WORDS[:, i] == v].sum(dim=0) / joint.sum(dim=0)
        found = said.query.softmax(dim=-1)[:, i, v].double()
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    if masked:  # of a mask, r sums to 1 by itself
        assert said.lse[x == V].abs().max() < 1e-4


def chances(sampler, context, masked, share, after, x):
    """Of every state, the chance that the step takes each position to each token."""
    space, here = context.part("space"), level_of(share, len(x))
    context.part("network").output = output(masked, share, x)
    denoise = ScoreEntropy(Dropping(), context).denoise()
    drawn = {}
    space.draw = lambda log_p, wanted, noise, draw: drawn.setdefault("log_p", log_p).argmax(-1)
    step = Step.between(x, here, level_of(after, len(x)), Noise.keyed(0, torch.arange(len(x)), 0))
    sampler.step(lambda x, at, p: denoise(x, at, denoise.start(x), given(space, x)), x, step, ())
    return drawn["log_p"].exp()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("after", [0.4, 0.0])
def test_tweedie_is_the_exact_law_of_a_position_at_the_next_level(masked, after):
    share, x = 0.7, states(masked)
    context = setting(masked)
    found = chances(Tweedie(Nothing(), context), context, masked, share, after, x)
    q, q_next = kernel(masked, share), kernel(masked, after)
    left = (1.0 - share) / (1.0 - after)
    joint = LAW[:, None] * q[WORDS[:, None, :], x[None]].prod(dim=-1)
    for i, y in itertools.product(range(L), range(V)):
        across = left * (x[:, i] == y) + (1.0 - left) * ((x[:, i] == V) if masked else 1.0 / V)
        likely = q_next[WORDS[:, i], y][:, None] / q[WORDS[:, None, i], x[None, :, i]]
        chance = (joint * likely.nan_to_num(0.0)).sum(dim=0) * across / joint.sum(dim=0)
        moved = x[:, i] != y
        torch.testing.assert_close(found[moved, i, y], chance[moved], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("masked", [True, False])
def test_euler_and_tweedie_agree_on_short_steps(masked):
    context, x = setting(masked), states(masked)
    gaps = []
    for after in (0.69, 0.699):
        exact, euler = (
            chances(kind(Nothing(), context), context, masked, 0.7, after, x)
            for kind in (Tweedie, TauLeaping)
        )
        gaps.append((euler - exact).abs().max() / exact.max())
    if masked:  # at a share of masks that is linear in time they are one
        assert max(gaps) < 1e-9
    else:
        assert gaps[1] < 0.15 * gaps[0] < 0.01


@pytest.mark.parametrize("masked", [True, False])
def test_loss_is_that_of_the_denoiser_which_the_scores_imply(masked):
    """MDLM's and UDLM's bounds, which are sums over the same posteriors; ends are their own."""
    context, n, share = setting(masked), 400, 0.6
    schedule, network = context.part("schedule"), context.part("network")
    ids = WORDS[torch.arange(n) % len(WORDS)]
    t = torch.full((n,), share / (1.0 - 1e-3))
    u = (t - schedule.t_min) / (schedule.t_max - schedule.t_min)
    noise, batch = Noise.keyed(0, torch.arange(n), 0), Batch(ids, ids >= 0)
    torch.manual_seed(1)
    log_r = torch.randn(n, L, V).log_softmax(dim=-1)
    other = MaskedBound(Dropping(), context) if masked else UniformBound(uniform.Udlm(), context)
    network.output = log_r
    expected = other(batch, Draws(u, noise))
    objective = ScoreEntropy(Dropping(), context)
    if masked:
        network.output = log_r + torch.tensor(float(V)).log()
    else:
        x = objective.noised(batch, Draws(u, noise), schedule.level(t)).x
        q = (1.0 - share) * log_r.exp() + share / V
        network.output = (q / q.gather(-1, x[..., None])).log()
    found = objective(batch, Draws(u, noise))
    end = objective.graph.rest(masked_share(schedule.level(torch.tensor([1.0]))))
    middle = found.unconditional & expected.unconditional
    assert middle.sum() > 0.9 * n
    gap = expected.per_row - (found.per_row - (end if masked else 0.0))
    # MDLM's other end is a row's chance, ours a sum: the share of its middle differs by that
    torch.testing.assert_close(gap[middle], 0 * gap[middle], atol=5e-3 if masked else 1e-4, rtol=0)


def test_score_entropy_is_least_at_the_exact_scores():
    context, share = setting(True), 0.5
    graph = ScoreEntropy(Dropping(), context).graph
    x = torch.full((len(WORDS), L), V)
    said = output(True, share, x).requires_grad_()
    nats = graph.entropy(said, x, WORDS, level_of(share, len(WORDS)))
    (slope,) = torch.autograd.grad((LAW[:, None] * nats).sum(), said)
    assert slope.sum(dim=0).abs().max() < 1e-5


def test_geometric_noise_is_its_formula_to_the_highest_level():
    schedule = GeometricNoise(Geometric(), BuildContext(length=L, vocab_size=V))
    t = torch.linspace(0.0, 1.0, 11)
    total = 1e-4 ** (1 - t) * 20.0**t
    torch.testing.assert_close(schedule.level(t).alpha, torch.exp(-total))
    torch.testing.assert_close(schedule.inverse(schedule.level(t).ratio), t, atol=1e-4, rtol=0)
    rate = total * torch.tensor(2e5).log()
    torch.testing.assert_close(loss_rate(schedule, t), rate, rtol=1e-3, atol=0)
    fine = torch.linspace(1.0, 0.0, 129)
    here, after = schedule.level(fine[:-1]), schedule.level(fine[1:])
    x = torch.zeros(128, L, dtype=torch.int64)
    step = Step.between(x, here, after, Noise.keyed(0, torch.arange(128), 0))
    _, amount = Tweedie(Nothing(), setting(True)).jump(step)
    exact = 1e-4 ** (1 - fine.double()) * 20.0 ** fine.double()
    torch.testing.assert_close(amount, 1 - torch.exp(-exact[:-1] + exact[1:]), rtol=1e-3, atol=2e-7)


@pytest.mark.parametrize("sampler", [Tweedie, TauLeaping])
@pytest.mark.parametrize("masked", [True, False])
def test_texts_in_small_steps_have_the_law_of_the_chain(masked, sampler):
    n, steps = 2000, 16
    context = setting(masked)
    space, network = context.part("space"), context.part("network")
    denoise, stepped = ScoreEntropy(Dropping(), context).denoise(), sampler(Nothing(), context)
    top = masked_share(level_of(0.999, n))
    x = space.corruption.prior(
        torch.zeros(n, L, dtype=torch.int64),
        Level(1 - top, top),
        Noise.keyed(1, torch.arange(n), 99),
    )
    shares = torch.linspace(0.999, 0.0, steps + 1).tolist()
    every = states(masked)
    place = torch.tensor([(V + masked) ** (L - 1 - i) for i in range(L)])
    for i, (here, after) in enumerate(itertools.pairwise(shares)):
        network.output = output(masked, here, every)[(x * place).sum(dim=1)]
        step = Step.between(
            x, level_of(here, n), level_of(after, n), Noise.keyed(0, torch.arange(n), i)
        )
        x, prediction, _ = stepped.step(
            lambda x, at, p: denoise(x, at, denoise.start(x), given(space, x)), x, step, ()
        )
    found = torch.bincount((x * V ** torch.arange(L - 1, -1, -1)).sum(dim=1), minlength=V**L) / n
    assert (found.double() - LAW).abs().sum() < 0.2
    assert prediction.query.isfinite().all()


def test_a_mask_that_has_a_logit_is_no_token():
    """As in released models: the same scores, whatever the network says of the mask."""
    bare, x = BuildContext(length=L, vocab_size=V), states(True)
    beside = graph_of(TokenSpace(Tokens(dim=4, size=V + 1), bare))
    alone = graph_of(TokenSpace(Tokens(dim=4), bare))
    said, level = torch.randn(len(x), L, V), level_of(0.5, len(x))
    more = torch.cat((said, torch.full((len(x), L, 1), 9.0)), dim=-1)
    ids = WORDS[torch.arange(len(x)) % len(WORDS)]
    expected = alone.entropy(said, x, ids, level)
    torch.testing.assert_close(beside.entropy(more, x, ids, level), expected)
    r = beside.others_say(more, x, level).exp()
    torch.testing.assert_close(r[..., :-1], alone.others_say(said, x, level).exp())
    assert (r[..., -1] == 0).all()

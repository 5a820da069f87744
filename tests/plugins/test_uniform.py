"""The uniform state: its bound and its samplers against sums over all texts."""

import itertools
import math

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.options import Nothing
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import loss_rate, masked_share, score_entropy, uniformity
from dlmkit.noise import Noise
from dlmkit_cdcd.masking import NoMasking
from dlmkit_mdlm.configs import LogLinear as LogLinearConfig
from dlmkit_mdlm.schedule import LogLinear
from dlmkit_uniform import configs
from dlmkit_uniform.curriculum import Softened
from dlmkit_uniform.objective import UniformBound, UniformDenoise
from dlmkit_uniform.sampler import PosteriorSampler, PredictorCorrector
from dlmkit_uniform.space import UniformSpace

V, L = 3, 2
JOINT = torch.tensor([[0.1, 0.2, 0.05], [0.05, 0.3, 0.1], [0.1, 0.05, 0.05]], dtype=torch.float64)


def kernel(share):
    """q(x | x0), (..., V, V), float64."""
    share = torch.as_tensor(share)[..., None, None]
    return (1.0 - share) * torch.eye(V, dtype=torch.float64) + share / V


class LeaveOneOut(ScoreNetwork):
    """log p(token | x elsewhere) of JOINT: what the bound's best network says."""

    def __init__(self, space):
        super().__init__()
        self.space = space
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, level, conditioning, previous):
        ids = torch.cdist(x, self.space.table.weight.expand(len(x), -1, -1)).argmin(dim=-1)
        share = masked_share(level).double()[:, None, None]
        said = share / V + (1.0 - share) * torch.eye(V, dtype=torch.float64)[ids]  # (B, L, V)
        first = torch.einsum("ab,nb->na", JOINT, said[:, 1])
        second = torch.einsum("ab,na->nb", JOINT, said[:, 0])
        return torch.stack([first, second], dim=1).log().float()

    def shard_units(self):
        return ()


@pytest.fixture(scope="module")
def context():
    torch.manual_seed(0)
    context = BuildContext(length=L, vocab_size=V)
    space = UniformSpace(configs.States(dim=4), context)
    parts = {
        "space": space,
        "network": LeaveOneOut(space),
        "schedule": LogLinear(LogLinearConfig(), context),
        "masking": NoMasking(Nothing(), context),
    }
    return BuildContext(length=L, vocab_size=V, parts=parts)


def test_score_entropy_is_the_sum_of_its_definition():
    torch.manual_seed(0)
    log_score = torch.randn(50, 4, 6, dtype=torch.float64)
    x, ids = torch.randint(6, (50, 4)), torch.randint(6, (50, 4))
    log_score.scatter_(-1, x[..., None], 0.0)
    spread = torch.rand(50, 1, dtype=torch.float64) * 3
    found = score_entropy(log_score, x, ids, spread)
    for i, j in itertools.product(range(50), range(4)):
        up = {True: math.exp(spread[i]), False: 1.0}
        q = [up[y == int(ids[i, j])] for y in range(6)]
        total = 0.0
        for y in set(range(6)) - {int(x[i, j])}:
            ratio, log_s = q[y] / q[x[i, j]], float(log_score[i, j, y])
            total += math.exp(log_s) - ratio * log_s + ratio * (math.log(ratio) - 1.0)
        assert float(found[i, j]) == pytest.approx(total, rel=1e-9)
        assert total >= 0


def test_bound_of_the_exact_model_is_the_entropy(context):
    """Over all texts, all noisy x and all times: the integral and both end terms."""
    objective = UniformBound(configs.Udlm(), context).eval()
    schedule, space, network = (context.part(k) for k in ("schedule", "space", "network"))
    words = torch.tensor(list(itertools.product(range(V), repeat=L)))
    n = 1000
    t = schedule.t_min + (schedule.t_max - schedule.t_min) * (torch.arange(n) + 0.5).double() / n
    ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
    total = 0.0
    with torch.no_grad():
        for x, ids in itertools.product(words, words):
            here = x.expand(n, L)
            level = schedule.level(t)
            chance = kernel(masked_share(level))[:, ids, x].prod(dim=1)
            query = network(space.table(here), level, None, None)
            nats = objective._between(query, here, ids.expand(n, L), level).double().sum(dim=1)
            rate = loss_rate(schedule, t) / V * (schedule.t_max - schedule.t_min)
            total += float(JOINT[tuple(ids)] * (chance * rate * nats).mean())
            low = schedule.level(ends[:1])
            given = Conditioning.of(
                space.table(x[None]), x[None] < 0, torch.ones(1, L, dtype=torch.bool)
            )
            denoise = objective.denoise()
            said = denoise(x[None], low, denoise.start(x[None]), given).query
            loss = -said.log_softmax(dim=-1)[0, range(L), ids].sum()
            total += float(JOINT[tuple(ids)] * kernel(masked_share(low))[0, ids, x].prod() * loss)
        total += L * float(uniformity(masked_share(schedule.level(ends[1:])), V))
    assert total == pytest.approx(-float((JOINT * JOINT.log()).sum()), abs=2e-4)


def test_prediction_is_the_posterior_of_what_x_says_and_the_rest(context):
    space, network = context.part("space"), context.part("network")
    denoise = UniformDenoise(space, network)
    x = torch.tensor([[0, 2], [1, 1]])
    level = Level(torch.tensor([0.3, 0.6]), torch.tensor([0.7, 0.4]))
    known = Conditioning.of(space.table(x), x < 0, x >= 0)
    found = denoise(x, level, denoise.start(x), known).query.softmax(dim=-1)
    for row in range(2):
        q = kernel(masked_share(level)[row].double())
        joint = JOINT * q[:, x[row, 0], None] * q[None, :, x[row, 1]]
        joint = joint / joint.sum()
        expected = torch.stack([joint.sum(dim=1), joint.sum(dim=0)]).float()
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)


def everything(space, n, length):
    """x of n rows at the level where all is lost."""
    level = Level(torch.zeros(n), torch.ones(n))
    like = torch.zeros(n, length, dtype=torch.int64)
    return space.corruption.prior(like, level, Noise.keyed(1, torch.arange(n), 99))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_one_position_keeps_its_law_at_every_level(eta):
    """From the exact q(x) at one level to that at the next, whatever the step and eta."""
    n = 40_000
    context = BuildContext(length=1, vocab_size=V)
    space = UniformSpace(configs.States(dim=4), context)
    context = BuildContext(length=1, vocab_size=V, parts={"space": space})
    prior = torch.tensor([0.6, 0.3, 0.1])

    class Prior(ScoreNetwork):
        unused = None

        def forward(self, x, level, conditioning, previous):
            return prior.log().expand(*x.shape[:2], V)

        def shard_units(self):
            return ()

    denoise = UniformDenoise(space, Prior())
    config = configs.PredictorCorrector(eta=eta)
    sampler = (
        PredictorCorrector(config, context)
        if eta
        else PosteriorSampler(configs.Posterior(), context)
    )
    shares = [1.0, 0.7, 0.3, 0.0]
    slots = torch.arange(n)
    x = everything(space, n, 1)
    known = Conditioning.of(space.table(x), x < 0, x >= 0)
    for i, (here, after) in enumerate(itertools.pairwise(shares)):
        here, after = (Level(torch.full((n,), 1.0 - s), torch.full((n,), s)) for s in (here, after))
        step = Step.between(x, here, after, Noise.keyed(0, slots, i))
        x, _, _ = sampler.step(
            lambda x, at, p: denoise(x, at, denoise.start(x), known), x, step, ()
        )
        found = torch.bincount(x[:, 0], minlength=V) / n
        share = float(masked_share(after)[0])
        torch.testing.assert_close(found, (1 - share) * prior + share / V, atol=0.012, rtol=0)


def test_two_positions_in_small_steps_have_the_law_of_the_text(context):
    n = 20_000
    space, network = context.part("space"), context.part("network")
    denoise, sampler = (
        UniformDenoise(space, network),
        PosteriorSampler(configs.Posterior(), context),
    )
    slots = torch.arange(n)
    x = everything(space, n, L)
    known = Conditioning.of(space.table(x), x < 0, x >= 0)
    shares = torch.linspace(1.0 - 1e-3, 0.0, 33).tolist()
    for i, (here, after) in enumerate(itertools.pairwise(shares)):
        here, after = (Level(torch.full((n,), 1.0 - s), torch.full((n,), s)) for s in (here, after))
        step = Step.between(x, here, after, Noise.keyed(0, slots, i))
        x, _, _ = sampler.step(
            lambda x, at, p: denoise(x, at, denoise.start(x), known), x, step, ()
        )
    found = torch.bincount(x[:, 0] * V + x[:, 1], minlength=V * V).view(V, V) / n
    torch.testing.assert_close(found, JOINT.float(), atol=0.02, rtol=0)


@pytest.mark.parametrize("share", [0.02, 0.4, 0.95])
def test_the_argmax_of_the_curriculum_has_the_law_of_the_uniform_state(share):
    n, size = 40_000, 7
    ids = torch.full((n, 1), 3)
    level = Level(torch.full((n,), 1.0 - share), torch.full((n,), share))
    softened, noise = Softened(size), Noise.keyed(0, torch.arange(n), 0)
    x, mixture = softened.draw(ids, level, noise, 1.0)
    found = torch.bincount(x[:, 0], minlength=size) / n
    expected = share / size + (1.0 - share) * torch.nn.functional.one_hot(ids[0, 0], size)
    torch.testing.assert_close(found, expected, atol=0.008, rtol=0)
    assert torch.equal(mixture.argmax(dim=-1), x)
    warm = softened.draw(ids, level, noise, 0.0)[1].amax(dim=-1).mean()
    assert warm < mixture.amax(dim=-1).mean()


def test_the_curriculum_reads_mixtures_until_it_ends(context):
    read = []
    objective = UniformBound(configs.Udlm(curriculum=4), context)
    network = context.part("network")
    said = network.forward
    network.forward = lambda x, *more: read.append(x) or said(x, *more)
    ids = torch.zeros(8, L, dtype=torch.int64)
    rows = context.part("space").table.weight.detach()
    try:
        for step in (0, 3, 4, None):
            step = None if step is None else torch.full((8,), step)
            draws = Draws(torch.linspace(0.1, 0.9, 8), Noise.keyed(0, torch.arange(8), 0), step)
            loss = objective(Batch(ids, ids == 0), draws).loss_sum
            assert loss.isfinite()
    finally:
        del network.forward
    single = [bool((torch.cdist(x, rows.expand(8, -1, -1)).amin(-1) < 1e-3).all()) for x in read]
    assert single == [False, False, True, True]


def test_a_greedy_tail_ends_on_the_likeliest_token(context):
    space, n = context.part("space"), 500
    denoise = UniformDenoise(space, context.part("network"))
    sampler = PosteriorSampler(configs.Posterior(greedy_tail=True), context)
    x = everything(space, n, L)
    known = Conditioning.of(space.table(x), x < 0, x >= 0)
    here, after = (Level(torch.full((n,), 1.0 - s), torch.full((n,), s)) for s in (0.5, 0.0))
    step = Step.between(x, here, after, Noise.keyed(0, torch.arange(n), 0))
    x, prediction, _ = sampler.step(
        lambda x, at, p: denoise(x, at, denoise.start(x), known), x, step, ()
    )
    assert torch.equal(x, prediction.query.argmax(dim=-1))

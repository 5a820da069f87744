"""MDLM: its bound and its sampler against enumeration of every masking."""

import itertools
import math

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.testing.parts import Nothing, Plain
from dlmkit_mdlm import configs
from dlmkit_mdlm.objective import MaskedBound, MaskedDenoise
from dlmkit_mdlm.sampler import Ancestral, categorical
from dlmkit_mdlm.schedule import LogLinear, masking_rate
from dlmkit_mdlm.space import TokenSpace

V, L = 3, 2
MASK = V
JOINT = torch.tensor([[0.1, 0.2, 0.05], [0.05, 0.3, 0.1], [0.1, 0.05, 0.05]], dtype=torch.float64)


def exact(known):
    """p(token at each position | ``known``, a tuple of tokens and masks) of JOINT, (L, V)."""
    found = torch.zeros(L, V, dtype=torch.float64)
    for word in itertools.product(range(V), repeat=L):
        if all(k in (MASK, token) for k, token in zip(known, word, strict=True)):
            for position, token in enumerate(word):
                found[position, token] += JOINT[word]
    return found / found.sum(dim=1, keepdim=True)


class Bayes(ScoreNetwork):
    """Reads the tokens off the table and answers with JOINT's exact conditionals."""

    def __init__(self, space):
        super().__init__()
        self.space = space
        self.unused = torch.nn.Parameter(torch.zeros(()))
        states = itertools.product(range(V + 1), repeat=L)
        self.answers = torch.stack([exact(s).clamp(min=1e-30).log().float() for s in states])

    def forward(self, x, level, conditioning, previous):
        ids = torch.cdist(x, self.space.table.weight.expand(len(x), -1, -1)).argmin(dim=-1)
        return self.answers[ids[:, 0] * (V + 1) + ids[:, 1]]

    def shard_units(self):
        return ()


class NothingGiven:
    def draw(self, attend, noise):
        return torch.zeros_like(attend)


@pytest.fixture(scope="module")
def context():
    torch.manual_seed(0)
    context = BuildContext(length=L, vocab_size=V)
    space = TokenSpace(configs.Tokens(dim=4), context)
    parts = {
        "space": space,
        "network": Bayes(space),
        "schedule": LogLinear(configs.LogLinear(), context),
        "masking": NothingGiven(),
    }
    return BuildContext(length=L, vocab_size=V, parts=parts)


def test_bound_of_the_exact_model_is_the_entropy(context):
    """The bound is tight where the denoiser is exact: its mean over texts is H(JOINT)."""
    objective = MaskedBound(configs.Nothing(), context).eval()
    words = torch.tensor(list(itertools.product(range(V), repeat=L)))
    n = 6000
    ids = words.repeat_interleave(n, dim=0)
    slots = torch.arange(len(ids))
    u = ((slots % n) + 0.5) / n
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool))
    with torch.no_grad():
        parts = objective(batch, Draws(u, Noise.keyed(0, slots, 0)))
    per_word = L * parts.per_row.view(len(words), n).mean(dim=1).double()
    entropy = -(JOINT * JOINT.log()).sum()
    estimate = (per_word * JOINT.flatten()).sum()
    torch.testing.assert_close(estimate, entropy, atol=0.06, rtol=0)


def test_weight_is_one_over_t():
    schedule = LogLinear(configs.LogLinear(), BuildContext(length=L))
    t = torch.linspace(0.001, 1.0, 50, dtype=torch.float64)
    torch.testing.assert_close(masking_rate(schedule, t), 1.0 / t)
    plain = Plain(Nothing(), BuildContext(length=L))  # masked share t / (1 + t)
    torch.testing.assert_close(masking_rate(plain, t + 0.1), 1 / (t + 0.1) - 1 / (1.1 + t))


def chain_law(times):
    """The law of the ancestral sampler's texts, by enumeration over all paths, (V,) * L."""
    law = {(MASK,) * L: 1.0}
    for here, after in itertools.pairwise(times):
        uncover = 1.0 - after / here
        new: dict[tuple[int, ...], float] = {}
        for state, chance in law.items():
            p = exact(state)
            choices = [
                [(k, 1.0)]
                if k != MASK
                else [(MASK, 1 - uncover), *((v, uncover * float(p[i, v])) for v in range(V))]
                for i, k in enumerate(state)
            ]
            for outcome in itertools.product(*choices):
                to = tuple(k for k, _ in outcome)
                new[to] = new.get(to, 0.0) + chance * math.prod(share for _, share in outcome)
        law = new
    result = torch.zeros(V, V, dtype=torch.float64)
    for state, chance in law.items():
        if chance > 0:
            result[state] = chance
    return result


@pytest.mark.parametrize("times", [[1.0, 0.0], [1.0, 0.6, 0.3, 0.0]])
def test_sampler_has_the_law_of_the_chain(context, times):
    n = 20_000
    space = context.part("space")
    denoise = MaskedDenoise(space, context.part("network"))
    sampler = Ancestral(configs.Nothing(), context)
    x = torch.full((n, L), MASK)
    known = Conditioning(x < 0, torch.zeros(n, L, space.dim), x >= 0)
    for step, (here, after) in enumerate(itertools.pairwise(times)):
        levels = [Level(torch.full((n,), 1.0 - m), torch.full((n,), m)) for m in (here, after)]
        with torch.no_grad():
            x, _, _ = sampler.step(
                lambda x, level, previous: denoise(x, level, previous, known),
                space.corruption,
                x,
                *levels,
                (),
                Noise.keyed(1, torch.arange(n), step),
                denoise.start(x),
            )
    found = torch.bincount(x[:, 0] * V + x[:, 1], minlength=V * V).double().view(V, V) / n
    expected = chain_law(times)
    spread = (expected * (1 - expected) / n).sqrt()
    assert ((found - expected).abs() < 4.5 * spread + 1e-9).all()


def test_uncovered_tokens_are_carried_over(context):
    parts = context.part("space"), context.part("network")
    x = torch.tensor([[1, MASK]])
    known = Conditioning(x < 0, torch.zeros(1, L, 4), x >= 0)
    level = Level(torch.tensor([0.5]), torch.tensor([0.5]))
    with torch.no_grad():
        prediction = MaskedDenoise(*parts)(x, level, torch.zeros(1, L, 4), known)
    p = prediction.query.softmax(dim=-1)[0]
    assert p[0].tolist() == [0.0, 1.0, 0.0]
    torch.testing.assert_close(p[1].double(), exact((1, MASK))[1], atol=1e-6, rtol=0)


def test_logits_are_as_precise_as_the_table_whatever_the_network_computes_in(context):
    denoise = MaskedDenoise(context.part("space"), context.part("network"))
    x = torch.tensor([[1, MASK]])
    known = Conditioning(x < 0, torch.zeros(1, L, 4), x >= 0)
    level = Level(torch.tensor([0.5]), torch.tensor([0.5]))
    narrow = torch.zeros(1, L, 4, dtype=torch.bfloat16)  # the start of a run in bf16
    with torch.no_grad():
        assert denoise(x, level, narrow, known).query.dtype == torch.float32


def test_rare_tokens_can_win():
    """u = 1 - 2^-40 is a Gumbel of 27.7; in single precision it would round to 1 (2409.02908)."""
    log_p = torch.tensor([0.0, -25.0])
    assert categorical(log_p, torch.tensor([0.5, 1.0 - 2.0**-40], dtype=torch.float64)) == 1
    assert categorical(log_p, torch.tensor([0.5, 1.0 - 2.0**-24], dtype=torch.float64)) == 0
    assert categorical(log_p, torch.tensor([0.0, 0.0], dtype=torch.float64)) in (0, 1)


def test_likelihood_of_a_mask_says_nothing(context):
    corruption = context.part("space").corruption
    level = Level(torch.tensor([0.5]), torch.tensor([0.5]))
    found = corruption.log_likelihood(torch.arange(V), torch.tensor([[2, MASK]]), level)
    assert found[0].tolist() == [[-math.inf, -math.inf, 0.0], [0.0, 0.0, 0.0]]

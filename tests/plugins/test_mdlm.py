"""MDLM: its bound and its sampler against enumeration of every masking."""

import itertools
import math

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import CORRUPTION, Batch, Draws
from dlmkit.core.options import Tokens
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace, categorical, masking_rate, positions_at_once
from dlmkit.noise import Noise
from dlmkit.testing import pretend
from dlmkit.testing.parts import Nothing, Plain
from dlmkit_cdcd.masking import NoMasking
from dlmkit_mdlm import configs
from dlmkit_mdlm.objective import MaskedBound, MaskedDenoise
from dlmkit_mdlm.sampler import UnmaskingSampler
from dlmkit_mdlm.schedule import LogLinear

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


@pytest.fixture(scope="module")
def context():
    torch.manual_seed(0)
    context = BuildContext(length=L, vocab_size=V)
    space = TokenSpace(Tokens(dim=4), context)
    parts = {
        "space": space,
        "network": Bayes(space),
        "schedule": LogLinear(configs.LogLinear(), context),
        "masking": NoMasking(Nothing(), context),
    }
    return BuildContext(length=L, vocab_size=V, parts=parts)


def test_bound_of_the_exact_model_is_the_entropy(context):
    """The bound is tight where the denoiser is exact: its mean over texts is H(JOINT)."""
    objective = MaskedBound(Nothing(), context).eval()
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


class Forced(Noise):
    """Noise of one role for all rows, and of given masked positions."""

    def __init__(self, role, masked):
        own = {"key": torch.zeros(ROWS, dtype=torch.int64), "role": role, "masked": masked}
        for name, value in own.items():
            object.__setattr__(self, name, value)

    def fork(self, domain):
        return Forced(self.role, self.masked if domain == CORRUPTION else None)

    def uniform(self, draw, shape=(), dtype=torch.float32):
        if self.masked is None:
            return torch.full((ROWS, *shape), self.role, dtype=torch.float64)
        return torch.where(self.masked, -1.0, 2.0).expand(ROWS, *shape)


ROWS = 4000


def expected_loss(context, ids):
    """Nats of the row ``ids``: every mask with its chance, u by the midpoint rule, and the two
    end terms as often as they come."""
    objective = MaskedBound(Nothing(), context).eval()
    schedule = objective.schedule
    u = (torch.arange(ROWS) + 0.5).double() / ROWS
    # midpoints in log m, with the weights of that change of variable: the integrand is near 1 / m
    ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
    t = ends[0] * (ends[1] / ends[0]) ** u
    stretch = t * (ends[1] / ends[0]).log() / (ends[1] - ends[0])
    u = (t - ends[0]) / (ends[1] - ends[0])
    batch = Batch(ids.expand(ROWS, -1), torch.ones(ROWS, L, dtype=torch.bool))
    total = 0.0
    low, high = schedule.level(ends).sigma.tolist()
    chances = {0.0: low, 0.5: high - low, 1.0 - 1e-9: 1.0 - high}
    for role, often in chances.items():
        share = {0.0: low + 0 * t, 0.5: schedule.level(t).sigma, 1.0 - 1e-9: high + 0 * t}[role]
        for masked in itertools.product([False, True], repeat=L):
            count = sum(masked)
            chance = share**count * (1 - share) ** (L - count)
            draws = Draws(u, Forced(role, torch.tensor(masked)))
            with torch.no_grad():
                loss = L * objective(batch, draws).per_row.double()
            total += often * float((chance * loss * (stretch if role == 0.5 else 1.0)).mean())
    return total


def test_not_knowing_anything_costs_log_v_to_the_last_digits(context):
    space = context.part("space")
    uniform = Bayes(space)
    uniform.answers = torch.zeros_like(uniform.answers)
    alone = BuildContext(length=L, vocab_size=V, parts={**context.parts, "network": uniform})
    found = expected_loss(alone, torch.tensor([0, 2]))
    assert found == pytest.approx(L * math.log(V), rel=1e-5)  # without the ends: 0.2 % less


def test_bound_of_the_exact_model_is_the_entropy_to_the_last_digits(context):
    """All but the chance that an end term meets two tokens at once, a millionth."""
    words = itertools.product(range(V), repeat=L)
    found = sum(float(JOINT[w]) * expected_loss(context, torch.tensor(w)) for w in words)
    entropy = -float((JOINT * JOINT.log()).sum())
    assert found == pytest.approx(entropy, rel=1e-5)


def test_rows_of_the_end_terms_say_nothing_of_the_schedule(context):
    objective = MaskedBound(Nothing(), context).eval()
    ids = torch.zeros(ROWS, L, dtype=torch.int64)
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool))
    for role, used in ((0.0, False), (0.5, True), (1.0 - 1e-9, False)):
        draws = Draws(torch.full((ROWS,), 0.5), Forced(role, torch.ones(L, dtype=torch.bool)))
        assert bool(objective(batch, draws).unconditional.all()) is used


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
    sampler = UnmaskingSampler(configs.Unmasking(), context)
    x = torch.full((n, L), MASK)
    known = Conditioning(x < 0, torch.zeros(n, L, space.dim), x >= 0)
    for number, (here, after) in enumerate(itertools.pairwise(times)):
        levels = [Level(torch.full((n,), 1.0 - m), torch.full((n,), m)) for m in (here, after)]
        noise = Noise.keyed(1, torch.arange(n), number)
        step = Step.between(x, *levels, noise, denoise.start(x))
        with torch.no_grad():
            x, _, _ = sampler.step(lambda *now: denoise(*now, known), x, step, ())
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


class Fixed(ScoreNetwork):
    """Answers with the same logits whatever it reads."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, x, level, conditioning, previous):
        return self.logits[: len(x)]

    def shard_units(self):
        return ()


class Watched(Noise):
    """Keyed noise that counts the numbers it makes."""

    made = 0

    def uniform(self, *arguments):
        numbers = super().uniform(*arguments)
        Watched.made += numbers.numel()
        return numbers


WORDS, TEXTS, LENGTH = 20_000, 3, 30


@pytest.fixture
def half():
    """A space of many tokens, and rows of which about half is masked."""
    torch.manual_seed(0)
    context = BuildContext(length=LENGTH, vocab_size=WORDS)
    space = TokenSpace(Tokens(dim=4), context)
    network = Fixed(torch.randn(TEXTS, LENGTH, WORDS))
    x = torch.randint(0, WORDS, (TEXTS, LENGTH))
    x[torch.rand(TEXTS, LENGTH) < 0.5] = WORDS
    return space, network, x


def level(masked, device=None):
    share = torch.full((TEXTS,), masked, device=device)
    return Level(1.0 - share, share)


def uncovering(space, network, x, noise):
    """A step of ``x`` in which a third of the masked tokens is uncovered, ready to be taken."""
    parts = {"space": space}
    sampler = UnmaskingSampler(configs.Unmasking(), BuildContext(length=LENGTH, parts=parts))
    denoise = MaskedDenoise(space, network)
    known = Conditioning(x < 0, x.new_zeros(TEXTS, LENGTH, 4, dtype=torch.float32), x >= 0)
    here, there = level(0.5, x.device), level(0.33, x.device)
    step = Step.between(x, here, there, noise, denoise.start(x))
    return lambda: sampler.step(lambda *now: denoise(*now, known), x, step, ())[0]


@torch.no_grad()
def uncovered(*given):
    """``x`` after that step."""
    return uncovering(*given)()


def test_tokens_are_drawn_where_they_are_uncovered_alone_and_as_if_drawn_everywhere(half):
    space, network, x = half
    noise = Noise.keyed(5, torch.tensor([7, 0, 3]), 4)
    u = noise.uniform(0, (LENGTH,), torch.float64)
    everywhere = noise.uniform(1, (LENGTH, WORDS), torch.float64)
    gumbel = -torch.log(-torch.log(everywhere))
    changes = (x == WORDS) & (u >= 0.33 / torch.tensor(0.5))
    expected = torch.where(changes, (network.logits.double() + gumbel).argmax(dim=-1), x)
    assert 5 < int(changes.sum()) < 30
    Watched.made = 0
    assert torch.equal(uncovered(space, network, x, Watched(noise.key)), expected)
    assert Watched.made == x.numel() + int(changes.sum()) * WORDS


def test_a_step_that_uncovers_nothing_draws_no_token(half):
    space, network, x = half
    clean = x.clamp(max=WORDS - 1)
    Watched.made = 0
    noise = Watched(Noise.keyed(5, torch.arange(TEXTS), 4).key)
    assert torch.equal(uncovered(space, network, clean, noise), clean)
    assert Watched.made == x.numel()


def test_an_accelerator_draws_the_same_tokens_and_is_not_waited_for(half, accelerator):
    space, network, x = half
    noise = Noise.keyed(5, torch.tensor([7, 0, 3]), 4)
    expected = uncovered(space, network, x, noise)
    there = x.to(accelerator), Noise(noise.key.to(accelerator))
    space, network = space.to(accelerator), network.to(accelerator)
    call = uncovering(space, network, *there)
    with torch.no_grad(), pretend.counted() as seen:
        found = call()
    assert torch.equal(found.cpu(), expected)
    assert seen.waits == 0


def test_reading_gives_the_likeliest_token_and_the_normaliser_block_by_block(half):
    space, network, _ = half
    logits = network.logits.detach() * 8.0
    logits[0, 0] = -104.0
    logits[0, 0, 3] = 0.0
    assert positions_at_once(logits.device, WORDS) < TEXTS * LENGTH
    with torch.no_grad():
        likeliest, lse = space.read(logits)
    assert torch.equal(likeliest, logits.argmax(dim=-1))
    torch.testing.assert_close(lse.double(), logits.double().logsumexp(-1), atol=2e-6, rtol=2e-7)

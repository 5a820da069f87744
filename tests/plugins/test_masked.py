"""Decoding of masked models: against an exact model, formulas and MDLM's own sampler."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import dlmkit
from dlmkit.core import tokens
from dlmkit.core.candidates import Candidates, by_rank, ranks
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.options import Tokens
from dlmkit.core.sampler import Step
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace
from dlmkit.errors import RecipeError
from dlmkit.kernels.vocabulary import certainty
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit_mdlm import configs as mdlm
from dlmkit_mdlm.objective import MaskedDenoise
from dlmkit_mdlm.sampler import UnmaskingSampler
from dlmkit_mdlm.schedule import LogLinear

V, L = 3, 3
MASK = V
JOINT = torch.randn(V**L, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
JOINT = (1.5 * JOINT).softmax(dim=0).view(V, V, V)
WORDS = torch.tensor(list(itertools.product(range(V), repeat=L)))
REGISTRY = Registry.load(third_party=False)


def answers():
    """log p(token at each position | visible tokens) of JOINT for every state, and of the tokens
    that are written what the network would say: their own log-probability as if masked."""
    found = torch.empty((V + 1) ** L, L, V, dtype=torch.float64)
    for i, state in enumerate(itertools.product(range(V + 1), repeat=L)):
        for position in range(L):
            fits = torch.ones(len(WORDS), dtype=torch.bool)
            for other in range(L):
                if other != position and state[other] != MASK:
                    fits &= WORDS[:, other] == state[other]
            weight = JOINT.flatten() * fits
            p = torch.stack([weight[WORDS[:, position] == v].sum() for v in range(V)])
            found[i, position] = (p / p.sum()).log()
    return found.float()


ANSWERS = answers()


def denoise(x, level, previous):
    """The exact model; a written token is certain, and ``own`` says what it is without itself."""
    index = (x * (V + 1) ** torch.arange(L - 1, -1, -1)).sum(dim=1)
    raw = ANSWERS[index]
    settled = x != MASK
    token = torch.where(settled, x, 0)[..., None]
    own = torch.where(settled, raw.gather(-1, token)[..., 0], 0.0)
    certain = torch.full_like(raw, -104.0).scatter(-1, token, 0.0)
    query = torch.where(settled[..., None], certain, raw)
    return Prediction(query.argmax(-1), query, query.logsumexp(-1), query.argmax(-1), (), log_p=own)


def context(length=L, size=V):
    torch.manual_seed(0)
    base = BuildContext(length=length, vocab_size=size)
    space = TokenSpace(Tokens(dim=4), base)
    parts = {"space": space, "schedule": LogLinear(mdlm.LogLinear(), base)}
    return BuildContext(length=length, vocab_size=size, parts=parts)


def build(kind, use, **options):
    return REGISTRY.build(kind, Part(use=use, options=options), context())


def part(use, **options):
    return {"use": f"masked:{use}", "with": options}


def run(sampler, count, steps, seed=0):
    """(texts, how many tokens each row had written after every step) on a linear grid."""
    x = torch.full((count, L), MASK)
    state, written = sampler.init(x), []
    ends = torch.linspace(1.0, 1e-3, steps, dtype=torch.float64)
    shares = torch.cat((0.999 * ends, ends.new_zeros(1)))
    for index in range(steps):
        here, after = (
            Level(1.0 - m, m) for m in (shares[i].expand(count) for i in (index, index + 1))
        )
        noise = Noise.keyed(seed, torch.arange(count), index)
        now = Step.between(x, here, after, noise, (), index, steps)
        x, _, state = sampler.step(denoise, x, now, state)
        written.append((x != MASK).sum(dim=1))
    return x, torch.stack(written, dim=1)


def distance(texts):
    """Total variation between how often each word comes and JOINT."""
    index = (texts * V ** torch.arange(L - 1, -1, -1)).sum(dim=1)
    share = torch.bincount(index, minlength=V**L).double() / len(texts)
    return 0.5 * float((share - JOINT.flatten()).abs().sum())


ORDERS = ["random", "left-to-right", "confidence", "margin", "entropy"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("quota", ["tokens", "first-hitting"])
def test_one_token_a_step_is_exact_in_any_order(order, quota):
    sampler = build("sampler", "masked:decoder", order=part(order), quota=part(quota))
    texts, written = run(sampler, 20_000, L)
    assert torch.equal(written[0], torch.tensor([1, 2, 3]))
    assert distance(texts) < 0.02


def test_all_at_once_is_not():
    sampler = build("sampler", "masked:decoder", quota=part("tokens", tokens=3))
    assert distance(run(sampler, 40_000, 1)[0]) > 0.1


def test_random_order_by_drawn_levels_is_mdlms_own_sampler():
    drawn = part("schedule", shape="level", count="drawn")
    ours = build("sampler", "masked:decoder", order=part("random"), quota=drawn)
    theirs = UnmaskingSampler(mdlm.Unmasking(), context())
    for steps in (1, 2, 5):
        assert torch.equal(run(ours, 500, steps)[0], run(theirs, 500, steps)[0])


@pytest.mark.parametrize(
    ("shape", "length", "steps", "expected"),
    [
        ("linear", 10, 4, [3, 3, 2, 2]),
        ("linear", 12, 5, [3, 3, 2, 2, 2]),
        ("linear", 5, 5, [1] * 5),
        ("cosine", 100, 4, [8, 22, 33, 37]),
        ("square", 100, 4, [7, 19, 31, 43]),
        ("root", 100, 4, [50, 21, 16, 13]),
    ],
)
def test_a_schedule_writes_what_its_shape_says(shape, length, steps, expected):
    quota = build("quota", "masked:schedule", shape=shape)
    masked, taken = torch.ones(2, length, dtype=torch.bool), []
    for index in range(steps):
        c = candidates(torch.zeros(2, length, V), masked, index=index, steps=steps)
        rank = ranks(torch.zeros(2, length), masked, c.step.noise)
        accepted, _ = quota.accept(rank, c, ())
        taken.append(int(accepted[0].sum()))
        masked = masked & ~accepted
    assert taken == expected


def candidates(logits, open, index=0, steps=8, settled=None, **more):
    x = torch.full(open.shape, MASK)
    noise = Noise.keyed(3, torch.arange(len(open)), index)
    half = torch.full((len(open),), 0.5)
    now = Step.between(x, Level(half, half), Level(half + 0.1, half - 0.1), noise, (), index, steps)
    lse = logits.logsumexp(-1)
    own = more.pop("own", None)
    prediction = Prediction(logits.argmax(-1), logits, lse, logits.argmax(-1), (), log_p=own)
    every = torch.full((len(open),), steps)
    return Candidates(
        space=context(open.shape[1], logits.shape[-1]).part("space"),
        prediction=prediction,
        ids=x,
        masked=open,
        open=open,
        settled=~open if settled is None else settled,
        written=more.pop("written", torch.zeros(open.shape)),
        step=now,
        left=every - index,
        steps=every,
    )


def logits(*confidences, size=V):
    """One row whose likeliest tokens have these probabilities, the others share the rest."""
    p = torch.tensor([[c, *[(1.0 - c) / (size - 1)] * (size - 1)] for c in confidences]).double()
    return p.log()[None]


def accepted(quota, guess, order="confidence", memory=None):
    open = torch.ones(guess.shape[:2], dtype=torch.bool)
    c = candidates(guess, open)
    rank = ranks(build("order", f"masked:{order}").scores(c), open, c.step.noise)
    memory = quota.init(c.ids) if memory is None else memory
    mask, memory = quota.accept(rank, c, memory)
    return mask[0].tolist(), memory


def test_threshold_takes_what_is_probable_and_at_least_the_first():
    quota = build("quota", "masked:threshold", threshold=0.9)
    assert accepted(quota, logits(0.95, 0.5, 0.91, 0.89))[0] == [True, False, True, False]
    assert accepted(quota, logits(0.6, 0.8, 0.7))[0] == [False, True, False]


def test_factor_is_the_largest_n_of_its_formula():
    quota = build("quota", "masked:factor", factor=1.0)
    # (n + 1)(1 - p): 2 x 0.05, 3 x 0.2 = 0.6, 4 x 0.3 = 1.2
    assert accepted(quota, logits(0.7, 0.95, 0.8))[0] == [False, True, True]
    assert accepted(quota, logits(0.4, 0.45, 0.38))[0] == [False, True, False]


def test_entropy_bound_sums_all_but_the_largest():
    guess = logits(0.9, 0.99, 0.5, 0.8)
    h = -(guess.exp() * guess).sum(-1)[0]
    quota = build("quota", "masked:entropy-bound", bound=float(h[1] + h[0]) + 1e-6)
    # by entropy: 1, 0, 3, 2; three sum to h1 + h0 + h3 - h3, four to more
    assert accepted(quota, guess, "entropy")[0] == [True, True, False, True]
    none = build("quota", "masked:entropy-bound", bound=0.0)
    assert accepted(none, guess, "entropy")[0] == [False, True, False, False]


def test_stable_waits_until_a_prediction_has_stood_still():
    quota = build("quota", "masked:stable", threshold=0.8, kl=0.01, steps=2)
    still, moving = logits(0.9, 0.85, 0.95), logits(0.9, 0.85, 0.81)
    found, memory = accepted(quota, still)
    assert found == [False, False, True]  # the first, whatever it is
    found, memory = accepted(quota, still, memory=memory)
    assert found == [False, False, True]
    found, memory = accepted(quota, moving, memory=memory)
    assert found == [True, True, False]
    assert accepted(quota, logits(0.5, 0.6, 0.81), memory=memory)[0] == [False, False, True]


def test_a_rule_of_exits_accepts_positions_as_the_quotas_made_for_it_do():
    margin = {"use": "samplers:margin", "with": {"threshold": 0.85}}
    quota = build("quota", "masked:rule", rule=margin)
    # p1 - p2 of three tokens: 1.5 p1 - 0.5
    assert accepted(quota, logits(0.95, 0.5, 0.91, 0.89))[0] == [True, False, True, False]
    assert accepted(quota, logits(0.6, 0.8, 0.7))[0] == [False, True, False]
    still = {
        "use": "samplers:patience",
        "with": {"rule": {"use": "kl", "with": {"threshold": 0.01}}},
    }
    rules = [{"use": "samplers:margin", "with": {"threshold": 0.7}}, still]
    both = build("quota", "masked:rule", rule={"use": "samplers:all", "with": {"rules": rules}})
    guess, moving = logits(0.9, 0.85, 0.95), logits(0.9, 0.85, 0.81)
    course, memory = [], both.init(torch.full((1, 3), MASK))
    for index, now in enumerate((guess, guess, guess, moving)):
        c = candidates(now, torch.ones(1, 3, dtype=torch.bool), index)
        mask, memory = both.accept(torch.tensor([[1, 2, 0]]), c, memory)
        course.append(mask[0].tolist())
    first, all_, two = [False, False, True], [True, True, True], [True, True, True]
    assert course == [first, first, all_, two]  # the last one's first is written whatever it is


def test_what_is_common_comes_later_and_so_does_what_stands_behind():
    model = dlmkit.compose(extends="mdlm_grammar", length=12)
    batch = next(model.data.excerpt(1))
    counts = batch.ids[batch.attend].bincount()
    common, rare = int(counts.argmax()), int((counts == 0).nonzero()[-1])
    config, size = {"tokens": 1}, model.assembly.space.vocab_size
    order = model.assembly.build("order", Part(use="masked:corpus", options=config))
    guess = torch.zeros(1, 3, size).double()
    for position, (token, gap) in enumerate([(common, 4.0), (rare, 4.0), (rare, 3.0)]):
        guess[0, position, token] = gap
    c = replace(candidates(guess, torch.ones(1, 3, dtype=torch.bool)), space=model.assembly.space)
    first, second, third = order.scores(c)[0].tolist()
    p = guess.softmax(-1).amax(-1)[0]
    share = (counts[common] + 1).double() / (counts.sum() + size)
    assert first == pytest.approx(math.log(-float(p[0] * share.log())))
    assert second > third > first
    late = model.assembly.build(
        "order", Part(use="masked:corpus", options={**config, "decay": 2.0, "most": 1e-3})
    )
    expected = [float(p[i].log()) + math.log(1e-3) - 2.0 * i for i in range(3)]
    assert late.scores(c)[0].tolist() == pytest.approx(expected)
    with pytest.raises(RecipeError, match="counts the tokens of a text"):
        build("order", "masked:corpus")


def test_freeze_has_no_place_beside_a_quota():
    frozen = {"use": "samplers:margin", "with": {"threshold": 0.9}}
    with pytest.raises(RecipeError, match=r"freeze: .*sampler\.with\.quota: \{use: masked:rule"):
        dlmkit.compose(extends="mdlm_grammar", sampler="masked:decoder", freeze=frozen)


def test_the_step_that_a_position_is_certain_at_does_not_depend_on_rounding():
    """Confidence, margin and entropy in double precision, far beyond where p rounds to 1."""
    gaps = torch.tensor([0.3, 5.0, 12.0, 25.0, 40.0, 60.0])
    guess = torch.stack((gaps, gaps * 0, gaps * 0 - 1.0), dim=-1)
    found = certainty(guess)
    p = guess.double().softmax(-1)
    rest = p[:, 1:].sum(-1)
    torch.testing.assert_close(found.first.double(), torch.log1p(-rest), atol=0, rtol=1e-5)
    torch.testing.assert_close(found.second.double(), p[:, 1].log(), atol=0, rtol=1e-5)
    entropy = -(p[:, 1:] * p[:, 1:].log()).sum(-1) - p[:, 0] * torch.log1p(-rest)
    torch.testing.assert_close(found.entropy.double(), entropy, atol=0, rtol=1e-5)
    open = torch.ones(1, 6, dtype=torch.bool)
    for order in ("confidence", "margin", "entropy"):
        scores = build("order", f"masked:{order}").scores(candidates(guess[None], open))[0]
        assert scores.diff().gt(0).all(), order


def test_certainty_of_what_is_impossible_or_the_only_choice():
    guess = torch.tensor([[0.0, -torch.inf, -torch.inf], [1.0, 1.0, -torch.inf]])
    found = certainty(guess)
    torch.testing.assert_close(found.first, torch.tensor([0.0, -math.log(2)]))
    torch.testing.assert_close(found.entropy, torch.tensor([0.0, math.log(2)]))


def test_equal_scores_go_by_noise_and_closed_positions_last():
    open = torch.ones(4000, 6, dtype=torch.bool)
    open[:, 2] = False
    rank = ranks(torch.zeros(4000, 6), open, Noise.keyed(0, torch.arange(4000), 0))
    assert (rank[:, 2] == 5).all()
    share = (rank[:, [0, 1, 3, 4, 5]] == 0).double().mean(0)
    assert (share - 0.2).abs().max() < 0.03
    scores = torch.tensor([[0.1, torch.nan, 3.0, -torch.inf, 0.5]])
    rank = ranks(scores, open[:1, [0, 1, 3, 4, 5]], Noise.keyed(0, torch.arange(1), 0))
    assert by_rank(scores, rank)[0, :3].tolist() == pytest.approx([3.0, 0.5, 0.1])


def decoder(**options):
    return build("sampler", "masked:decoder", **options)


def test_the_likeliest_tokens_and_those_of_a_small_set():
    greedy = decoder(draw={"temperature": 0.0}, quota=part("tokens", tokens=3))
    texts, _ = run(greedy, 50, 1)
    assert (texts == ANSWERS[-1].argmax(-1)).all()
    one = decoder(draw={"top_k": 1}, quota=part("tokens", tokens=3))
    assert torch.equal(run(one, 50, 1)[0], texts)
    two = run(decoder(draw={"top_k": 2}, quota=part("tokens", tokens=3)), 5000, 1)[0]
    p = ANSWERS[-1].exp()
    for position in range(L):
        share = torch.bincount(two[:, position], minlength=V) / len(two)
        best = p[position].topk(2).indices
        expected = torch.zeros(V).index_copy(0, best, p[position][best] / p[position][best].sum())
        torch.testing.assert_close(share, expected, atol=0.03, rtol=0)
    nucleus = run(decoder(draw={"top_p": 0.5}, quota=part("tokens", tokens=3)), 2000, 1)[0]
    for position in range(L):
        values, ids = p[position].sort(descending=True)
        kept = ids[: int((values.cumsum(0) - values < 0.5).sum())]
        assert set(nucleus[:, position].tolist()) == set(kept.tolist())


def test_a_temperature_is_of_the_draw_alone():
    """Which positions come first does not change with it."""
    seen = [
        run(decoder(order=part("confidence"), draw={"temperature": t}), 300, L)[1]
        for t in (0.05, 3.0)
    ]
    assert torch.equal(*seen)
    cold = run(decoder(quota=part("tokens", tokens=3), draw={"temperature": 0.5}), 20_000, 1)[0]
    share = torch.bincount(cold[:, 0], minlength=V) / len(cold)
    torch.testing.assert_close(share, (2.0 * ANSWERS[-1][0]).softmax(-1), atol=0.02, rtol=0)


def test_a_window_goes_left_to_right_and_shares_out_the_steps():
    sampler = decoder(order=part("random"), window=2)
    x = torch.full((64, 7), MASK)
    step = steps_of(x, 8)
    masked = torch.ones_like(x, dtype=torch.bool)
    masked[:, 0] = False  # a prompt
    generated = masked.clone()
    for index, (stretch, left, steps) in enumerate(
        [((1, 2), 3, 3), ((1, 2), 2, 3), ((3, 4), 4, 4), ((5, 6), 5, 5)]
    ):
        if index >= 2:
            masked[:, 1:3] = False
        if index >= 3:
            masked[:, 3:5] = False
        open, found, of = sampler._window(masked, step(index, generated))
        assert open[0].nonzero()[:, 0].tolist() == list(stretch)
        assert (int(found[0]), int(of[0])) == (left, steps)


def steps_of(x, steps):
    def step(index, generated):
        half = torch.full((len(x),), 0.5)
        noise = Noise.keyed(0, torch.arange(len(x)), index)
        now = Step.between(x, Level(half, half), Level(half, half), noise, (), index, steps)
        return replace(now, generated=generated)

    return step


REMASKS = [
    part("remdm", rule="cap", eta=0.3),
    part("remdm", rule="rescale", eta=0.5),
    part("remdm", rule="confidence", eta=1.0),
    part("planned"),
]


@pytest.mark.parametrize("remask", REMASKS)
def test_what_goes_back_is_replaced_and_all_is_written_in_the_end(remask):
    sampler = decoder(order=part("confidence"), remask=remask)
    texts, written = run(sampler, 2000, L)
    assert (texts != MASK).all()
    assert torch.equal(written, torch.tensor([1, 2, 3]).expand_as(written))
    plain, _ = run(decoder(order=part("confidence")), 2000, L)
    assert not torch.equal(texts, plain)


def test_remasking_goes_on_while_the_share_stands_still_and_comes_closer_to_the_model():
    """ReMDM-loop: two tokens at once are wrong together, and drawn again they are less so."""
    plain = distance(run(decoder(quota=part("tokens", tokens=3)), 30_000, 1)[0])
    loop = decoder(
        quota=part("schedule", shape="plateau", on=0.1, off=0.9),
        remask=part("remdm", rule="rescale", eta=1.0, on=0.1, off=0.9),
    )
    texts, written = run(loop, 30_000, 20)
    assert distance(texts) < 0.5 * plain
    assert written[:, 3:17].float().mean() < 2.0


def test_doubted_tokens_go_back_and_none_takes_their_place():
    rule = build("remask", "masked:doubted", threshold=0.2)
    open = torch.tensor([[False, False, True, True]])
    own = torch.tensor([[0.1, 0.3, 1.0, 1.0]]).log()
    c = candidates(torch.zeros(1, 4, V), open, own=own)
    assert rule.back(c, open, ())[0].tolist() == [[True, False, False, False]]
    assert not rule.replaces


def test_a_planner_keeps_what_it_is_surest_of():
    rule = build("remask", "masked:planned")
    open = torch.tensor([[False, False, True, True]])
    own = torch.tensor([[0.1, 0.6, 1.0, 1.0]]).log()
    guess = logits(0.9, 0.9, 0.8, 0.7)
    c = candidates(guess, open, own=own)
    now = torch.tensor([[False, False, True, False]])  # three are settled after the step
    assert rule.back(c, now, ())[0].tolist() == [[True, False, False, False]]
    equal = candidates(guess, open, own=torch.tensor([[0.75, 0.8, 0.0, 0.0]]).double().log())
    assert not rule.back(equal, now, ())[0].any()


def test_given_positions_and_padding_are_never_written():
    sampler = decoder(quota=part("tokens", tokens=9))
    x = torch.full((4, L), MASK)
    generated = torch.tensor([True, False, True]).expand(4, L)
    step = steps_of(x, 2)
    after, _, state = sampler.step(denoise, x, step(0, generated), sampler.init(x))
    assert ((after == MASK) == ~generated).all()
    assert sampler.ended(after, generated, state).all()
    assert not sampler.ended(x, generated, state).any()


def test_a_recipe_names_the_parts_and_a_threshold_saves_evaluations():
    quota = {"use": "masked:threshold", "with": {"threshold": 1e-6}}
    sampler = {"use": "masked:decoder", "with": {"order": part("entropy"), "quota": quota}}
    model = dlmkit.compose(extends="mdlm_grammar", length=12, sampler=sampler)
    seen = []
    model.sample(3, steps=8, seed=0, batch_size=2, progress=seen.append)
    samples = [sample for step in seen for sample in step.samples]
    assert [(s.steps, s.evaluations) for s in samples] == [(1, 1)] * 3
    sampler["with"]["quota"] = part("tokens")
    model = dlmkit.compose(extends="mdlm_grammar", length=12, sampler=sampler)
    seen = []
    model.sample(1, steps=20, seed=0, progress=seen.append)
    (sample,) = [sample for step in seen for sample in step.samples]
    assert sample.steps == 12


@pytest.mark.parametrize("remask", [None, part("remdm"), part("planned")])
def test_a_step_holds_no_second_tensor_of_the_logits_size(remask, monkeypatch):
    """Beside the network's own logits: blocks of positions alone, uniform numbers included."""
    monkeypatch.setattr(tokens, "NUMBERS", {"cpu": 512})
    rows, length, size = 4, 16, 64
    base = context(length, size)
    options = {"order": part("confidence"), "quota": part("entropy-bound"), "remask": remask}
    sampler = REGISTRY.build("sampler", Part(use="masked:decoder", options=options), base)
    x = torch.full((rows, length), size)
    x[:, :5] = 3
    raw = torch.randn(rows, length, size)

    class Network(ScoreNetwork):
        reads_level = False

        def forward(self, x, level, conditioning, previous):
            return raw

        def shard_units(self):
            return ()

    masked = MaskedDenoise(base.part("space"), Network())
    nothing = torch.zeros_like(x, dtype=torch.bool)
    known = Conditioning(nothing, torch.zeros(rows, length, 4), ~nothing)
    now, previous = steps_of(x, 8)(2, ~nothing), torch.zeros(rows, length, 4)
    seen = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            result = function(*arguments, **(options or {}))
            for leaf in result if isinstance(result, tuple | list) else [result]:
                if isinstance(leaf, torch.Tensor):
                    memory = leaf.untyped_storage()
                    seen.append((memory.data_ptr(), memory.nbytes(), str(function)))
            return result

    with torch.no_grad(), Sizes():
        after, _, _ = sampler.step(
            lambda x, level, _: masked(x, level, previous, known), x, now, sampler.init(x)
        )
    assert not torch.equal(after, x)
    own = raw.untyped_storage()
    assert [w for w in seen if w[0] != own.data_ptr() and w[1] >= own.nbytes()] == []

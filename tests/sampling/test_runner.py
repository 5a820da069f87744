"""The sampling loop: text i depends on (seed, i) alone, whatever the slots do."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise, ModelDenoise, Prediction
from dlmkit.core.embedding import Corruption, EmbeddingSpace
from dlmkit.core.exits import ExitCriterion, Statistic
from dlmkit.core.grid import Grid
from dlmkit.core.sampler import Sampler
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.errors import NonFiniteError, RecipeError, UsageError
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.sampling import slots
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request, unconditional
from dlmkit.sampling.runner import generate, stream
from dlmkit.testing.markov import MarkovChain, MarkovNetwork, MarkovSpace, markov_denoise

from . import conftest

V, L, D, N = 7, 6, 8, 12
CHAIN = MarkovChain.random(V)
mixed = partial(conftest.mixed, CHAIN, L)
DENOISE = markov_denoise(CHAIN, D)
REGISTRY = Registry.load(third_party=False)
CONTEXT = BuildContext(length=L, vocab_size=V, parts={"space": DENOISE.space})


def build(kind, use, **options):
    return REGISTRY.build(kind, Part(use=use, options=options), CONTEXT)


SCHEDULE = build("schedule", "variance-exploding", t_min=0.05, t_max=20.0, density="log-uniform")
STATISTICS = {name: build("statistic", name) for name in ("entropy", "kl", "jeffreys")}
STABLE = {
    "rules": [
        {"use": "entropy", "with": {"threshold": 0.1}},
        {"use": "patience", "with": {"rule": {"use": "jeffreys", "with": {"threshold": 0.5}}}},
    ]
}
LATE = {
    "use": "after",
    "with": {"step": 5, "rule": {"use": "jeffreys", "with": {"threshold": 0.05}}},
}
EXITS = {
    "none": None,
    "fixed": build("exit", "fixed", step=5),
    "entropy": build("exit", "entropy", threshold=0.15),
    "stable": build("exit", "all", **STABLE),
    "either": build("exit", "any", rules=[STABLE["rules"][0], LATE]),
}
SAMPLERS = {name: build("sampler", name) for name in ("euler", "heun", "ancestral")}


def parts(sampler="euler", exit="none", denoise=DENOISE, guidance=()):
    return SamplingParts(
        space=denoise.space,
        schedule=SCHEDULE,
        denoise=denoise,
        sampler=SAMPLERS[sampler],
        grid=build("grid", "warped"),
        exit=EXITS[exit],
        statistics=STATISTICS,
        guidance=guidance,
    )


def run(chosen, requests, batch_size, seed=0, steps=N, width=slots.exact):
    return generate(
        chosen, requests, seed=seed, steps=steps, batch_size=batch_size, length=L, width=width
    )


def steps_of(chosen, requests, batch_size, width=slots.exact, steps=N):
    return stream(
        chosen, requests, seed=0, steps=steps, batch_size=batch_size, length=L, width=width
    )


@pytest.mark.parametrize("exit", EXITS)
def test_texts_do_not_depend_on_slots(exit):
    """Slot counts 1, 7 and 64, refill and every compaction: same tokens, steps and reasons.

    test_contract.py asks every sampler and exit that is registered.
    """
    chosen, requests = parts("ancestral", exit), mixed(15)
    alone = run(chosen, requests, 1)
    assert [sample.row for sample in alone] == list(range(15))
    for batch_size, width in (
        (7, slots.exact),
        (7, slots.halves),
        (7, slots.constant),
        (64, slots.exact),
    ):
        assert run(chosen, requests, batch_size, width=width) == alone
    if exit not in ("none", "fixed"):
        assert len({sample.steps for sample in alone}) > 2, "rows must end at different steps"


class AskedAlways(ExitCriterion):
    """A rule that says it reads a statistic too, so that the device is asked at every step."""

    def __init__(self, rule):
        self.rule, self.needs = rule, (*rule.needs, "entropy")

    def init(self, rows):
        return self.rule.init(rows)

    def __call__(self, statistics, memory):
        return self.rule(statistics, memory)

    def reason(self, memory):
        return self.rule.reason(memory)


PLACES = {
    "fixed": {"step": 4},
    "fraction": {"fraction": 0.5},
    "level": {"sigma": 1.0},
    "patience": {"rule": {"use": "level", "with": {"sigma": 2.0}}, "steps": 2},
    "never": {"use": "level", "sigma": 1e-6},
}


@pytest.mark.parametrize("name", PLACES)
def test_a_rule_of_a_row_s_place_ends_rows_as_if_it_were_asked_at_every_step(name):
    options = dict(PLACES[name])
    rule = build("exit", options.pop("use", name), **options)
    known, asked = (replace(parts("ancestral"), exit=e) for e in (rule, AskedAlways(rule)))
    samples = run(known, mixed(9), 4)
    assert samples == run(asked, mixed(9), 4)
    ends = {(sample.steps, sample.halted) for sample in samples}
    assert len(ends) == 1
    assert ends == {(N, None)} if name == "never" else ends.pop()[0] < N


def test_a_request_can_say_when_its_text_ends():
    when = [1, 4, N, 2, N + 5, 3]
    requests = [replace(r, steps=s) for r, s in zip(mixed(6), when, strict=True)]
    samples = run(parts("ancestral"), requests, 2)
    assert [sample.steps for sample in samples] == [1, 4, N, 2, N, 3]
    assert [sample.halted for sample in samples][:3] == ["decided: step 1", "decided: step 4", None]
    for sample in samples:
        fixed = replace(parts("ancestral"), exit=build("exit", "fixed", step=sample.steps))
        assert run(fixed, mixed(6), 3)[sample.row].ids == sample.ids
    earlier = run(replace(parts("ancestral"), exit=EXITS["fixed"]), requests, 2)
    assert [sample.steps for sample in earlier] == [1, 4, 5, 2, 5, 3]


def test_texts_do_not_depend_on_order_or_process():
    chosen, requests = parts("ancestral", "either"), mixed(12)
    together = run(chosen, requests, 5)
    assert run(chosen, requests[::-1], 5) == together
    halves = run(chosen, requests[::2], 5) + run(chosen, requests[1::2], 5)
    assert sorted(halves, key=lambda sample: sample.row) == together


def test_classifier_free_guidance_does_not_depend_on_slots():
    guidance = (build("guidance", "classifier-free", scale=1.5),)
    chosen, requests = parts("heun", "entropy", guidance=guidance), mixed(9)
    assert run(chosen, requests, 4) == run(chosen, requests, 1)


def transformer():
    """A small network of the kind that is trained, in float32, with weights that do something."""
    torch.manual_seed(0)
    context = BuildContext(length=L, vocab_size=V)
    space = REGISTRY.build(
        "space", Part(use="normalised", options={"dim": D, "init_std": 1.0}), context
    )
    context = BuildContext(length=L, vocab_size=V, parts={"space": space})
    options = {"width": 32, "blocks": 2, "heads": 2, "time_features": 16}
    network = REGISTRY.build("network", Part(use="transformer", options=options), context)
    torch.nn.init.normal_(network.query.weight, std=0.3)
    return ModelDenoise(space.eval(), network.eval())


def test_rows_walk_the_grid_one_point_at_a_time_at_constant_shape():
    chosen = parts("euler", "entropy")
    seen, turns = {}, list(steps_of(chosen, unconditional(20, L), 6))
    for step in turns:
        for slot, row in enumerate(step.row.tolist()):
            seen.setdefault(row, []).append(int(step.done[slot]))
    assert all(walk == list(range(1, len(walk) + 1)) for walk in seen.values())
    widths = [len(step.row) for step in turns]
    last_fresh = max(i for i, step in enumerate(turns) if bool((step.done == 1).any()))
    assert set(widths[:last_fresh]) == {6}
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 1
    samples = {sample.row: sample for step in turns for sample in step.samples}
    assert {row: len(walk) for row, walk in seen.items()} == {
        r: s.steps for r, s in samples.items()
    }


def test_halves_shrink_by_halves():
    widths = [
        len(step.row)
        for step in steps_of(parts(exit="entropy"), unconditional(20, L), 8, slots.halves)
    ]
    assert set(widths) <= {8, 4, 2, 1}
    assert widths[-1] < 8


def test_halted_rows_are_frozen():
    """With a constant width, nothing of a halted row changes until the end."""
    last = {}
    for step in steps_of(parts("ancestral", "entropy"), unconditional(8, L), 8, slots.constant):
        for slot in (~step.live).nonzero()[:, 0].tolist():
            assert torch.equal(step.x[slot], last[slot][0])
            assert int(step.done[slot]) == last[slot][1]
        last = {slot: (step.x[slot].clone(), int(step.done[slot])) for slot in range(8)}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_given_positions_come_out_as_given(sampler):
    """Also from a network that would rather have written something else there."""
    requests = mixed(12)
    for sample, request in zip(
        run(parts(sampler, denoise=transformer()), requests, 5), requests, strict=True
    ):
        assert len(sample.ids) == len(request.tokens)
        for token, asked in zip(sample.ids, request.tokens, strict=True):
            assert asked in (None, token)


def test_a_prompt_is_heeded():
    """With a nearly deterministic chain, what follows a prompt follows from it."""
    transition = torch.full((V, V), 1e-3, dtype=torch.float64)
    transition[torch.arange(V), (torch.arange(V) + 1) % V] = 1.0
    chain = MarkovChain(torch.full((V,), 1 / V).double(), transition / transition.sum(1, True))
    requests = [Request.prompt(i, [i], L) for i in range(V)]
    for sample in run(parts(denoise=markov_denoise(chain, D)), requests, V, steps=24):
        assert sample.ids == tuple((sample.row + k) % V for k in range(L))


@pytest.mark.parametrize(("sampler", "cost"), [("euler", N), ("ancestral", N), ("heun", 2 * N - 1)])
def test_a_grid_of_n_points_costs_what_it_says(sampler, cost):
    turns = list(steps_of(parts(sampler), unconditional(3, L), 3))
    samples = [sample for step in turns for sample in step.samples]
    assert {(s.steps, s.evaluations, s.halted) for s in samples} == {(N, cost, None)}
    assert turns[-1].evaluations == 3 * cost


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_branches_are_counted(sampler):
    guidance = (
        build("guidance", "classifier-free", scale=2.0),
        build("guidance", "score-temperature", temperature=0.9),
    )
    plain, guided = (run(parts(sampler, guidance=g), mixed(5), 2) for g in ((), guidance))
    assert [s.evaluations for s in guided] == [2 * s.evaluations for s in plain]


def test_row_evaluations_are_those_of_the_rows_when_none_is_idle():
    turns = list(steps_of(parts(exit="entropy"), unconditional(20, L), 6))
    samples = [sample for step in turns for sample in step.samples]
    assert turns[-1].evaluations == sum(sample.evaluations for sample in samples)
    assert any(sample.evaluations < N for sample in samples)


def test_reasons():
    assert {sample.halted for sample in run(parts(exit="fixed"), mixed(4), 2)} == {"step >= 5"}
    reasons = {sample.halted for sample in run(parts(exit="either"), mixed(20), 7)}
    assert reasons <= {"entropy < 0.1", "jeffreys < 0.05 after step 5", None}
    assert len(reasons) > 1


def test_a_rule_that_holds_at_the_last_point_halts_nothing():
    exit = build("exit", "fixed", step=N)
    chosen = SamplingParts(
        DENOISE.space, SCHEDULE, DENOISE, SAMPLERS["euler"], build("grid", "warped"), exit
    )
    assert [sample.halted for sample in run(chosen, unconditional(2, L), 2)] == [None, None]


class NotANumber(Statistic):
    def per_position(self, space, now, before):
        return torch.full_like(now.lse, torch.nan)


def test_nan_never_halts():
    chosen = SamplingParts(
        DENOISE.space, SCHEDULE, DENOISE, SAMPLERS["euler"], build("grid", "warped"),
        exit=EXITS["entropy"], statistics={"entropy": NotANumber()},
    )  # fmt: skip
    assert {sample.steps for sample in run(chosen, unconditional(3, L), 2)} == {N}


def test_statistics_are_offered_once_a_step():
    turns = list(steps_of(parts(), unconditional(2, L), 2))
    for number, step in enumerate(turns, start=1):
        assert step.statistics["step"].tolist() == [number] * 2
        assert step.statistics["fraction"].tolist() == pytest.approx([number / N] * 2)
    sigmas = torch.stack([step.statistics["sigma"][0] for step in turns])
    assert sigmas[0] == pytest.approx(20.0)
    assert sigmas[-1] == pytest.approx(0.05)
    assert bool(torch.isinf(turns[0].statistics["kl"]).all())
    assert bool(torch.isfinite(turns[1].statistics["kl"]).all())


def test_a_refilled_slot_forgets_the_text_before():
    """The first step of the next text has no divergence to the last one's."""
    for step in steps_of(parts(exit="entropy"), unconditional(12, L), 3):
        first = step.done == 1
        assert torch.equal(torch.isinf(step.statistics["jeffreys"]), first)


def test_the_start_is_the_prior_and_its_own_draw():
    requests = unconditional(400, L)
    (first,) = itertools.islice(steps_of(parts(), requests, 400), 1)
    (noisy,) = itertools.islice(steps_of(parts("ancestral"), requests, 400), 1)
    x0, high = first.prediction.x0_step, 20.0
    low = float(SCHEDULE.level(parts().grid.points(SCHEDULE, N)).sigma[1])
    share = low / high
    start = x0 + (first.x - x0) / share
    n = start.numel()
    assert float(start.std()) == pytest.approx(high, abs=4 * high / math.sqrt(2 * n))
    assert abs(float(start.mean())) < 4 * high / math.sqrt(n)
    fresh = (noisy.x - x0 - share**2 * (start - x0)) / (low * math.sqrt(1 - share**2))
    assert float(fresh.std()) == pytest.approx(1.0, abs=4 / math.sqrt(2 * n))
    both = torch.corrcoef(torch.stack((fresh.flatten(), start.flatten())))
    assert abs(float(both[0, 1])) < 4 / math.sqrt(n)


def test_seeds_and_rows_differ():
    chosen = parts("ancestral")
    one, other = (run(chosen, unconditional(8, L), 8, seed=seed) for seed in (0, 1))
    assert one == run(chosen, unconditional(8, L), 8, seed=0)
    assert sum(a.ids == b.ids for a, b in zip(one, other, strict=True)) < 4
    assert len({sample.ids for sample in one}) > 4


def test_the_queue_is_read_only_as_slots_come_free():
    read = []

    def endless():
        for row in itertools.count():
            read.append(row)
            yield Request.free(row, L)

    turns = steps_of(parts(exit="fixed"), endless(), 3)
    for _, number in zip(turns, range(10), strict=False):
        assert len(read) == 3 * (1 + number // 5)


def test_no_requests_no_steps():
    assert run(parts(), [], 4) == []


def test_the_consumer_keeps_its_gradient_mode():
    for step in steps_of(parts(), unconditional(1, L), 1):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad


@pytest.mark.parametrize(("steps", "error"), [(0, "at least 1 step, not 0"), (-3, "not -3")])
def test_steps_below_one_are_refused(steps, error):
    with pytest.raises(UsageError, match=error):
        run(parts(), unconditional(1, L), 1, steps=steps)


def test_one_step_is_one_evaluation_at_the_highest_level():
    (step,) = steps_of(parts(), unconditional(2, L), 2, steps=1)
    assert step.statistics["sigma"].tolist() == [20.0, 20.0]
    assert [sample.evaluations for sample in step.samples] == [1, 1]


class Flat(Grid):
    def points(self, schedule, n):
        return torch.linspace(1.0, 0.5, n, dtype=torch.float64).round(decimals=1)


def test_a_grid_that_does_not_fall_is_refused():
    chosen = SamplingParts(DENOISE.space, SCHEDULE, DENOISE, SAMPLERS["euler"], Flat())
    with pytest.raises(RecipeError, match=r"grid Flat gave .* strictly decreasing"):
        run(chosen, unconditional(1, L), 1)


def test_half_precision_weights_keep_the_state_in_single_precision():
    space = MarkovSpace(V, D).bfloat16()
    denoise = ModelDenoise(space, MarkovNetwork(CHAIN, MarkovSpace(V, D)))
    for step in steps_of(parts(denoise=denoise), mixed(4), 4):
        assert step.x.dtype == torch.float32


class Absorbing(Corruption):
    """A discrete process: sigma is the share of tokens that are masked."""

    def __init__(self, mask: int, table: Tensor) -> None:
        self.mask, self.table = mask, table

    def corrupt(self, x0, level, noise):
        return torch.where(
            noise.uniform(0, x0.shape[1:]) < level.like(x0.float()).sigma, self.mask, x0
        )

    def prior(self, like, level, noise):
        return torch.full_like(like, self.mask)

    def input(self, x, level):
        return self.table[x]


class TokenSpace(EmbeddingSpace):
    """Token ids as x0; the query is the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.vocab_size = self.query_dim = V
        self.dim = V + 1
        self.corruption = Absorbing(V, torch.eye(V + 1))

    def embed(self, ids):
        return ids

    def logits(self, query):
        return query

    def expect(self, probabilities):
        return probabilities

    def decode(self, x, query):
        return torch.where(x == V, self.logits(query).argmax(dim=-1), x)


class Unigram(Denoise):
    """Every masked position is drawn alike; given ones are known."""

    def __init__(self) -> None:
        self.space = TokenSpace()

    def start(self, x):
        return x

    def __call__(self, x, level, previous, conditioning):
        assert x.dtype == torch.int64
        known = 50.0 * conditioning.clean[..., :V]
        query = torch.where(conditioning.given[..., None], known, torch.arange(V) / 4.0)
        return Prediction(x, query, query.logsumexp(-1), query.softmax(-1), x)


class Unmask(Sampler):
    """Masked positions are settled at the rate at which the masked share falls."""

    def step(self, denoise, x, step, state):
        prediction = denoise(x, step.here, step.previous)
        stay = (step.next.sigma / step.here.sigma)[:, None]
        gumbel = -torch.log(-torch.log(step.noise.uniform(0, (L, V)).clamp(min=1e-20)))
        drawn = (prediction.query + gumbel).argmax(dim=-1)
        settle = (x == V) & (step.noise.uniform(1, (L,)) >= stay)
        return torch.where(settle, drawn, x), prediction, state


class Share(NoiseSchedule):
    t_min, t_max = 0.01, 1.0

    def level(self, t):
        return Level(1.0 - 0.5 * t, t)

    def inverse(self, ratio):
        return ratio / (1 + 0.5 * ratio)


def test_discrete_spaces_run_through_the_same_loop():
    denoise = Unigram()
    grid, exit = build("grid", "linear"), EXITS["fixed"]
    chosen = SamplingParts(denoise.space, Share(), denoise, Unmask(), grid)
    requests = mixed(200)
    samples = run(chosen, requests, 64)
    assert samples == run(chosen, requests, 7)
    tokens = torch.tensor([t for s in samples if s.row % 4 == 0 for t in s.ids])
    assert set(tokens.tolist()) <= set(range(V))
    found = torch.bincount(tokens, minlength=V) / len(tokens)
    expected = (torch.arange(V) / 4.0).softmax(0)
    assert float((found - expected).abs().sum() / 2) < 0.12
    for sample, request in zip(samples, requests, strict=True):
        assert all(asked in (None, t) for t, asked in zip(sample.ids, request.tokens, strict=True))
    halted = run(SamplingParts(denoise.space, Share(), denoise, Unmask(), grid, exit), requests, 64)
    assert {sample.steps for sample in halted} == {5}
    likeliest = sum(t == V - 1 for s in halted for t in s.ids) / sum(len(s.ids) for s in halted)
    assert likeliest > 0.4, "positions still masked take the likeliest token"


def test_exit_memory_is_an_interface_that_can_be_subclassed():
    """A rule with no built-in relatives, by the interface alone."""

    class Odd(ExitCriterion):
        needs = ("step",)

        def init(self, rows):
            return {"seen": torch.zeros(rows)}

        def __call__(self, statistics, memory):
            return statistics["step"] == 3, {"seen": memory["seen"] + 1}

        def reason(self, memory):
            return f"seen {int(memory['seen'])}"

    chosen = SamplingParts(
        DENOISE.space, SCHEDULE, DENOISE, SAMPLERS["euler"], build("grid", "warped"), Odd()
    )
    assert {sample.halted for sample in run(chosen, unconditional(7, L), 2)} == {"seen 3"}


class Spoilt(Denoise):
    """The exact denoiser, whose prediction ``spoil`` changes in place."""

    def __init__(self, spoil):
        self.space, self.spoil = DENOISE.space, spoil

    def start(self, x):
        return DENOISE.start(x)

    def __call__(self, x, level, previous, conditioning):
        prediction = DENOISE(x, level, previous, conditioning)
        self.spoil(prediction, level)
        return prediction


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("exit", ["none", "fixed", "entropy"])
def test_a_prediction_that_is_not_finite_ends_sampling_and_never_becomes_text(value, exit):
    def spoil(prediction, level):
        prediction.query[-1, 2, 3] = value
        prediction.x0_step[-1, 2, 3] = value

    with pytest.raises(NonFiniteError, match=r"^text \d of seed 4: after \d+ steps ") as error:
        draw(parts(exit=exit, denoise=Spoilt(spoil)), unconditional(3, L), 4)
    assert error.value.exit_code == 7


def test_a_nan_of_one_step_in_the_middle_is_not_forgotten():
    def spoil(prediction, level):
        middle = (level.sigma > 1.0) & (level.sigma < 3.0)
        prediction.x0_step[middle] = math.nan

    with pytest.raises(NonFiniteError):
        draw(parts(denoise=Spoilt(spoil)), unconditional(3, L), 4)


def test_padding_and_impossible_tokens_need_not_be_finite():
    def spoil(prediction, level):
        prediction.query[0, 3:] = math.nan

    def impossible(prediction, level):
        prediction.query[..., 0] = -math.inf

    for spoilt in (spoil, impossible):
        assert len(draw(parts(denoise=Spoilt(spoilt)), [Request.free(0, 3)], 4)) == 1


def draw(model, requests, seed):
    return generate(model, requests, seed=seed, steps=N, batch_size=8, length=L)

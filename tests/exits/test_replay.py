"""A replayed rule is the rule run for real: same steps, same tokens, same evaluations."""

import itertools

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise
from dlmkit.errors import UsageError
from dlmkit.exits import replay
from dlmkit.exits.trace import TraceRecorder
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request
from dlmkit.sampling.runner import generate, stream
from dlmkit.testing.markov import MarkovChain, markov_denoise

V, L, D, N, TEXTS = 7, 10, 8, 14, 24
CHAIN = MarkovChain.random(V)
MARKOV = markov_denoise(CHAIN, D)
REGISTRY = Registry.load(third_party=False)
CONTEXT = BuildContext(length=L, vocab_size=V, parts={"space": MARKOV.space})


def build(kind, use, **options):
    return REGISTRY.build(kind, Part(use=use, options=options), CONTEXT)


def part(use, **options):
    return {"use": use, "with": options}


SCHEDULE = build("schedule", "variance-exploding", t_min=0.05, t_max=20.0, density="log-uniform")
STATISTICS = {
    entry.component.name: build("statistic", entry.qualified)
    for entry in REGISTRY.components("statistic")
}
RULES = {
    "fixed": part("fixed", step=5),
    "entropy": part("entropy", threshold=0.15),
    "kl": part("kl", threshold=0.01),
    "jeffreys": part("jeffreys", threshold=0.02),
    "fraction": part("fraction", fraction=0.4),
    "level": part("level", sigma=0.9),
    "margin": part("margin", threshold=0.6),
    "falling": part("falling", threshold=3.0),
    "switches": part("switches", most=1, steps=3),
    "stable-and-confident": part("stable-and-confident", threshold=0.4, steps=2),
    "patience": part("patience", rule=part("jeffreys", threshold=0.1), steps=3),
    "after": part("after", rule=part("kl", threshold=0.2), step=6),
    "all": part("all", rules=[part("entropy", threshold=0.3), part("jeffreys", threshold=0.05)]),
    "any": part("any", rules=[part("entropy", threshold=0.05), part("fixed", step=11)]),
}


def rule(name):
    return build("exit", RULES[name]["use"], **RULES[name]["with"])


def transformer():
    """A small untrained network whose predictions move along the grid, in float64."""
    torch.manual_seed(0)
    context = BuildContext(length=L, vocab_size=V)
    space = REGISTRY.build(
        "space", Part(use="normalised", options={"dim": D, "init_std": 1.0}), context
    )
    context = BuildContext(length=L, vocab_size=V, parts={"space": space})
    options = {"width": 32, "blocks": 2, "heads": 2, "time_features": 16}
    network = REGISTRY.build("network", Part(use="transformer", options=options), context)
    torch.nn.init.normal_(network.query.weight, std=0.4)
    return ModelDenoise(space.double().eval(), network.double().eval())


DENOISERS = {"markov": MARKOV, "transformer": transformer()}


def parts(denoise, sampler, exit_rule=None):
    return SamplingParts(
        space=denoise.space,
        schedule=SCHEDULE,
        denoise=denoise,
        sampler=build("sampler", sampler),
        grid=build("grid", "warped"),
        exit=exit_rule,
        statistics=STATISTICS,
    )


def mixed():
    ids = CHAIN.sample(TEXTS + 3, L, seed=9).tolist()
    kinds = [
        lambda i: Request.free(i, L),
        lambda i: Request.prompt(i, ids[i][:4], L),
        lambda i: Request.infill(i, [ids[i][:2], ids[i][7:]], L),
        lambda i: Request.free(i, 6),
    ]
    return [kinds[i % 4](i + 3) for i in range(TEXTS)]


def record(chosen, requests, seed=0, **kept):
    recorder = TraceRecorder(chosen, requests, steps=N, length=L, **kept)
    turns = stream(chosen, requests, seed=seed, steps=N, batch_size=7, length=L)
    for _ in recorder.watch(turns):
        pass
    return recorder.trace({"seed": seed})


CASES = [
    *itertools.product(["markov"], ["dpm-2m", "ancestral", "heun"], RULES),
    *itertools.product(["transformer"], ["ancestral"], ["entropy", "patience"]),
]


@pytest.fixture(scope="module")
def traces():
    keys = dict.fromkeys((denoiser, sampler) for denoiser, sampler, _ in CASES)
    return {(d, s): record(parts(DENOISERS[d], s), mixed()) for d, s in keys}


@pytest.mark.parametrize(("denoiser", "sampler", "name"), CASES)
def test_a_replay_is_the_run(traces, denoiser, sampler, name):
    trace = traces[denoiser, sampler]
    got = replay.replay(trace, rule(name))
    chosen = parts(DENOISERS[denoiser], sampler, rule(name))
    real = generate(chosen, mixed(), seed=0, steps=N, batch_size=7, length=L)
    assert trace.row.tolist() == [sample.row for sample in real]
    assert got.steps.tolist() == [sample.steps for sample in real]
    assert got.evaluations.tolist() == [sample.evaluations for sample in real]
    texts = [tuple(i[a].tolist()) for i, a in zip(got.ids, trace.attend, strict=True)]
    assert texts == [sample.ids for sample in real]


def test_every_rule_that_ships_is_among_them():
    assert {entry.component.name for entry in REGISTRY.components("exit")} == set(RULES)


def test_the_rules_above_halt_at_different_steps(traces):
    """Else the test above would show little."""
    for name in set(RULES) - {"fixed", "fraction", "level"}:
        steps = replay.replay(traces["markov", "dpm-2m"], rule(name)).steps
        assert len(set(steps.tolist())) > 1, name


def test_a_rule_that_needs_more_than_was_recorded_is_refused(traces):
    entropy = rule("entropy")
    entropy.needs = ("perplexity",)
    with pytest.raises(UsageError, match="lacks what the rule reads: perplexity; it holds entropy"):
        replay.replay(traces["markov", "dpm-2m"], entropy)


def test_every_fixed_exit_is_the_argmax_of_its_step(traces):
    trace = traces["markov", "heun"]
    for step in (1, 5, N):
        stopped = replay.fixed(trace, step)
        assert torch.equal(stopped.ids, trace.ids[:, step - 1])
        assert stopped.evaluations.unique().tolist() == [min(2 * step, 2 * N - 1)]
    assert replay.full(trace).token_disagreement == 0.0
    assert replay.full(trace).saving == 1.0


def test_the_oracle_stops_at_the_last_change(traces):
    """By its definition, text by text."""
    trace = traces["markov", "ancestral"]
    found = replay.oracle(trace)
    assert found.row_disagreement(0.0) == 0.0
    for ids, free, step in zip(trace.ids, trace.generated, found.steps.tolist(), strict=True):
        same = [torch.equal(at[free], ids[-1][free]) for at in ids]
        assert all(same[step - 1 :])
        assert step == 1 or not same[step - 2]


def test_disagreement_counts_generated_tokens_alone(traces):
    trace = traces["markov", "dpm-2m"]
    found = replay.fixed(trace, 2)
    for place, share in enumerate(found.disagreement.tolist()):
        free = trace.generated[place]
        wrong = int((trace.ids[place, 1] != trace.full[place])[free].sum())
        assert share == wrong / int(free.sum())
    rows = [share > 0.25 for share in found.disagreement.tolist()]
    assert found.row_disagreement(0.25) == sum(rows) / TEXTS
    low, high = found.row_interval(0.25)
    assert low < sum(rows) / TEXTS < high
    low, high = found.token_interval()
    assert low < found.token_disagreement < high


def test_the_best_fixed_exit_keeps_its_bound(traces):
    trace = traces["markov", "dpm-2m"]
    for loss in (replay.token_loss, replay.row_loss()):
        best = replay.best_fixed(trace, 0.1, loss)
        step = int(best.steps[0])
        assert float(loss(best).mean()) <= 0.1
        assert all(float(loss(replay.fixed(trace, s)).mean()) > 0.1 for s in range(1, step))
    assert int(replay.best_fixed(trace, 1.0).steps[0]) == 1


def test_a_sweep_saves_more_as_thresholds_grow(traces):
    trace = traces["markov", "dpm-2m"]
    family = lambda t: build("exit", "entropy", threshold=t)  # noqa: E731
    found = replay.sweep(trace, family, [1e-6, 0.1, 10.0])
    savings = [one.saving for _, one in found]
    assert savings == sorted(savings)
    assert savings[0] < savings[1]
    assert savings[-1] == N
    low, high = found[1][1].saving_interval()
    assert 1.0 <= low < found[1][1].saving < high


def test_a_tolerance_is_exceeded_not_reached():
    """1 of 100 tokens is 1 %, which is not more than 1 %."""
    steps, share = torch.tensor([1, 1]), torch.tensor([1 / 100, 2 / 100], dtype=torch.float64)
    one = replay.Replay(steps, steps, steps[:, None], share, 1)
    assert one.disagreeing().tolist() == [False, True]

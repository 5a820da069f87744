"""A replayed rule is the rule run for real: same steps, same tokens, same evaluations."""

import itertools

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise
from dlmkit.errors import UsageError
from dlmkit.evaluation import replay
from dlmkit.plugin import Part
from dlmkit.registry import Registry
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request
from dlmkit.sampling.runner import generate, stream
from dlmkit.sampling.trace import TraceRecorder
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
STATISTICS = {name: build("statistic", name) for name in ("entropy", "kl", "jeffreys")}
RULES = {
    "fixed": part("fixed", step=5),
    "entropy": part("entropy", threshold=0.15),
    "kl": part("kl", threshold=0.01),
    "jeffreys": part("jeffreys", threshold=0.02),
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


@pytest.fixture(scope="module")
def traces():
    keys = itertools.product(DENOISERS, ("euler", "ancestral", "heun"))
    return {(d, s): record(parts(DENOISERS[d], s), mixed()) for d, s in keys}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("sampler", ["euler", "ancestral", "heun"])
@pytest.mark.parametrize("denoiser", DENOISERS)
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


def test_the_rules_above_halt_at_different_steps(traces):
    """Else the test above would show little."""
    for name in set(RULES) - {"fixed"}:
        steps = replay.replay(traces["markov", "euler"], rule(name)).steps
        assert len(set(steps.tolist())) > 1, name


def test_a_rule_that_needs_more_than_was_recorded_is_refused(traces):
    entropy = rule("entropy")
    entropy.needs = ("margin",)
    with pytest.raises(UsageError, match="lacks what the rule reads: margin; it holds entropy"):
        replay.replay(traces["markov", "euler"], entropy)

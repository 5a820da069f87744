"""Text i depends on (seed, i) alone: every sampler and exit that is built in, as registered."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry
from dlmkit.sampling import slots
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request
from dlmkit.sampling.runner import generate, stream
from dlmkit.testing.markov import MarkovChain, markov_denoise

from . import conftest

V, L, D, N = 7, 5, 8, 8
CHAIN = MarkovChain.random(V)
queue = partial(conftest.mixed, CHAIN, L)
DENOISE = markov_denoise(CHAIN, D)
REGISTRY = Registry.load(third_party=False)
CONTEXT = BuildContext(length=L, vocab_size=V, parts={"space": DENOISE.space})

ENTROPY = {"use": "entropy", "with": {"threshold": 0.15}}
JEFFREYS = {"use": "jeffreys", "with": {"threshold": 0.005}}
OPTIONS = {
    "fixed": {"step": 4},
    "fraction": {"fraction": 0.5},
    "level": {"sigma": 0.6},
    "entropy": {"threshold": 0.15},
    "kl": {"threshold": 0.005},
    "jeffreys": {"threshold": 0.005},
    "margin": {"threshold": 0.9},
    "falling": {"threshold": 3.0},
    "switches": {"most": 0, "steps": 2},
    "stable-and-confident": {"threshold": 0.2, "steps": 1},
    "any": {"rules": [ENTROPY, JEFFREYS]},
    "all": {"rules": [ENTROPY, JEFFREYS]},
    "patience": {"rule": ENTROPY, "steps": 2},
    "after": {"rule": ENTROPY, "step": 5},
}
"""What an exit rule of ours needs to halt these texts at different steps; one has to be added for
every new rule whose options have no defaults."""
ALIKE = {"fixed", "fraction", "level"}


def names(kind):
    return sorted(
        entry.component.name
        for entry in REGISTRY.components()
        if entry.component.kind == kind and entry.plugin == "samplers"
    )


SAMPLERS, EXITS = names("sampler"), names("exit")


def build(kind, name, context=CONTEXT, **options):
    return REGISTRY.build(kind, Part(use=f"samplers:{name}", options=options), context)


SCHEDULE = REGISTRY.build(
    "schedule",
    Part(
        use="variance-exploding",
        options={"t_min": 0.05, "t_max": 20.0, "density": "log-uniform"},
    ),
    CONTEXT,
)
GRID = build("grid", "warped")


def parts(sampler, exit=None, freeze=None, denoise=DENOISE):
    rules = {
        key: build("exit", name, **OPTIONS.get(name, {}))
        for key, name in (("exit", exit), ("freeze", freeze))
        if name is not None
    }
    needed = {name for rule in rules.values() for name in rule.needs}
    statistics = {
        name: build("statistic", name) for name in sorted(needed - {"step", "fraction", "sigma"})
    }
    return SamplingParts(
        denoise.space, SCHEDULE, denoise, build("sampler", sampler), GRID,
        statistics=statistics, **rules,
    )  # fmt: skip


def run(chosen, requests, batch_size, width=slots.exact, steps=N):
    return generate(
        chosen, requests, seed=0, steps=steps, batch_size=batch_size, length=L, width=width
    )


def test_every_kind_is_covered():
    assert {"euler", "heun", "ancestral", "dpm-2m", "dpm-3m", "unipc"} <= set(SAMPLERS)
    assert set(OPTIONS) <= set(EXITS)


@pytest.mark.parametrize("exit", EXITS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_texts_are_the_same_in_any_slots(sampler, exit):
    """Slot counts 1, 7 and 64, refill, compaction, permutation: tokens, steps and reasons."""
    chosen, requests = parts(sampler, exit), queue(9)
    wide = run(chosen, requests, 64)
    assert run(chosen, requests, 7) == wide
    assert run(chosen, requests[::-1], 7, slots.halves) == wide
    assert run(chosen, requests[:3], 1) == wide[:3]


@pytest.mark.parametrize("exit", EXITS)
def test_the_rules_here_halt_texts_at_different_steps(exit):
    """So that the test above refills slots at different times."""
    steps = {sample.steps for sample in run(parts("euler", exit), queue(9), 9)}
    assert (len(steps) == 1) == (exit in ALIKE)


@pytest.mark.parametrize("exit", EXITS)
def test_settling_positions_keeps_texts_apart(exit):
    """The same contract where the rule settles single positions, and beside another exit."""
    for chosen in (parts("dpm-2m", freeze=exit), parts("unipc", "entropy", exit)):
        wide = run(chosen, queue(9), 64)
        assert run(chosen, queue(9), 7) == wide
        assert run(chosen, queue(9)[::-1], 7, slots.constant) == wide
        assert run(chosen, queue(3), 1) == wide[:3]


def ways(chosen, requests, batch_size):
    """Every x of every row, by (row, step), at constant width."""
    turns = stream(
        chosen, requests, seed=0, steps=N, batch_size=batch_size, length=L, width=slots.constant
    )
    return {
        (row, int(step.done[slot])): step.x[slot]
        for step in turns
        for slot, row in enumerate(step.row.tolist())
        if step.live[slot]
    }


def transformer():
    """A small network of the kind that is trained, in float32, with weights that do something."""
    torch.manual_seed(0)
    context = BuildContext(length=L, vocab_size=V)
    options = {"dim": D, "init_std": 1.0}
    space = REGISTRY.build("space", Part(use="normalised", options=options), context)
    context = replace(context, parts={"space": space})
    options = {"width": 32, "blocks": 2, "heads": 2, "time_features": 16}
    network = REGISTRY.build("network", Part(use="transformer", options=options), context)
    torch.nn.init.normal_(network.query.weight, std=0.3)
    return ModelDenoise(space.eval(), network.eval())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_at_one_slot_count_rows_are_bitwise_the_same(sampler):
    """Whatever else is in the queue, how long it is and how it is ordered."""
    chosen = parts(sampler, "any", denoise=transformer())
    reference = ways(chosen, queue(9), 4)
    for requests in (queue(9)[::-1], queue(9)[5:] + queue(2)):
        for key, x in ways(chosen, requests, 4).items():
            assert torch.equal(x, reference[key])


def lead(space, query):
    """(the likeliest tokens, how far in logits each leads the runner-up)."""
    top = space.logits(query).topk(2, dim=-1)
    return top.indices[..., 0], top.values[..., 0] - top.values[..., 1]


def followed(chosen, requests, batch_size):
    """By (row, step): the likeliest tokens at generated positions, and their lead."""
    result = {}
    for step in stream(chosen, requests, seed=0, steps=N, batch_size=batch_size, length=L):
        ids, gap = lead(chosen.space, step.prediction.query)
        for slot in step.live.nonzero()[:, 0].tolist():
            result[int(step.row[slot]), int(step.done[slot])] = ids[slot], gap[slot]
    return result


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_in_single_precision_only_near_ties_differ(sampler):
    """At least 99.9 % of tokens agree between 1, 7 and 64 slots; a row differs first at a tie."""
    chosen = parts(sampler, denoise=transformer())
    requests = [Request.free(i, L) for i in range(70)]
    wide = followed(chosen, requests, 64)
    for other in (followed(chosen, requests, 7), followed(chosen, requests[:10], 1)):
        differ = {}
        for row, step in sorted(other):
            mine, gap = other[row, step]
            places = mine != wide[row, step][0]
            if bool(places.any()):
                differ.setdefault(row, float(gap[places].max()))
        final = [(other[row, N][0], wide[row, N][0]) for row, step in other if step == N]
        agree = torch.stack([(a == b).double().mean() for a, b in final]).mean()
        assert float(agree) >= 0.999
        assert all(gap < 1e-3 for gap in differ.values()), differ


def test_settled_positions_are_given_from_the_next_step_on():
    """For real: their tokens stand to the end, and the others are predicted knowing them."""
    chosen = parts("euler", freeze="entropy")
    given = {}
    for step in stream(chosen, queue(8), seed=0, steps=N, batch_size=8, length=L):
        ids = chosen.space.logits(step.prediction.query).argmax(dim=-1)
        for slot in step.live.nonzero()[:, 0].tolist():
            row = int(step.row[slot])
            for place, token in given.get(row, {}).items():
                assert int(ids[slot, place]) == token, "the exact posterior knows what was settled"
        entropy = chosen.statistics["entropy"].per_position(
            chosen.space, step.prediction, step.prediction
        )
        for slot, place in (entropy < 0.15).nonzero().tolist():
            if bool(step.live[slot]):
                known = given.setdefault(int(step.row[slot]), {})
                known.setdefault(place, int(ids[slot, place]))
    samples = run(chosen, queue(8), 8)
    for sample in samples:
        for place, token in given[sample.row].items():
            assert place >= len(sample.ids) or sample.ids[place] == token
    assert {sample.halted for sample in samples} <= {"every position settled", None}
    assert len({sample.steps for sample in samples}) > 1


def test_neighbours_see_what_is_settled():
    """In a chain of certain transitions one settled token settles all the others' predictions."""
    step = torch.full((V, V), 1e-6, dtype=torch.float64)
    step[torch.arange(V), (torch.arange(V) + 1) % V] = 1.0
    chain = MarkovChain(torch.full((V,), 1 / V).double(), step / step.sum(1, True))
    chosen = parts("euler", freeze="fixed", denoise=markov_denoise(chain, D))
    for sample in run(chosen, [Request.free(i, L) for i in range(4)], 4):
        assert (sample.steps, sample.halted) == (4, "every position settled")
        assert all((a + 1) % V == b for a, b in zip(sample.ids, sample.ids[1:], strict=False))


def test_what_is_not_settled_ends_with_the_grid():
    chosen = replace(parts("euler"), freeze=build("exit", "fixed", step=N + 1))
    assert run(chosen, queue(8), 4) == run(parts("euler"), queue(8), 4)

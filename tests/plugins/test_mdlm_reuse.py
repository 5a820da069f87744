"""A prediction is used again until a token changes: the same texts, and true counts."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from dlmkit.core.denoise import Spent, spent
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.errors import NonFiniteError
from dlmkit.recipe.assemble import assemble, assemble_sampling
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.runner import stream
from dlmkit_mdlm.objective import MaskedDenoise

LENGTH, STEPS, TEXTS = 12, 40, 5
REGISTRY = Registry.load(third_party=False)


class Spoilt(MaskedDenoise):
    """Predicts NaN of one token around the middle of the way."""

    def query(self, x, level, previous, conditioning):
        query = super().query(x, level, previous, conditioning).clone()
        middle = (level.alpha > 0.4) & (level.alpha < 0.6)
        query[:, 3, 2] = torch.where(middle, torch.nan, query[:, 3, 2])
        return query


class Always(MaskedDenoise):
    """Asked at every step."""

    def reusing(self, counted):
        return counted


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    small = ("width=16", "blocks=1", "heads=2", "level=false")
    overrides = [f"network.with.{option}" for option in small]
    config = load_recipe("mdlm:mdlm_grammar", [f"length={LENGTH}", *overrides], REGISTRY).config
    assembly = assemble(config, REGISTRY)
    torch.nn.init.normal_(assembly.network.query.weight)
    assembly.objective.eval()
    return assemble_sampling(assembly)


def run(parts, batch_size):
    """(steps, samples by index, rows that the network itself was called with)."""
    seen = []
    network = parts.denoise.network
    hook = network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    steps = list(
        stream(
            parts,
            unconditional(TEXTS, LENGTH),
            seed=3,
            steps=STEPS,
            batch_size=batch_size,
            length=LENGTH,
        )
    )
    hook.remove()
    samples = sorted((s for step in steps for s in step.samples), key=lambda s: s.row)
    return steps, samples, seen


@pytest.mark.parametrize("batch_size", [2, TEXTS])
def test_texts_are_those_of_asking_always_and_evaluations_those_that_were_made(parts, batch_size):
    always = replace(parts, denoise=Always(parts.space, parts.denoise.network))
    expected, all_samples, _ = run(always, batch_size)
    steps, samples, seen = run(parts, batch_size)
    assert [s.ids for s in samples] == [s.ids for s in all_samples]
    assert [s.evaluations for s in all_samples] == [STEPS] * TEXTS
    states: dict[int, list[torch.Tensor]] = {}
    for step in expected:
        for row, live, x in zip(step.row.tolist(), step.live.tolist(), step.origin, strict=True):
            if live:
                states.setdefault(row, []).append(x)
    for sample in samples:
        history = states[sample.row]
        changes = sum(not torch.equal(a, b) for a, b in pairwise(history))
        assert sample.evaluations == 1 + changes <= LENGTH + 1
        assert sample.steps == STEPS
    assert steps[-1].evaluations == sum(seen) == sum(s.evaluations for s in samples)


def test_a_network_that_reads_the_level_is_asked_at_every_step(parts):
    network = parts.denoise.network
    network.reads_level = True
    try:
        reading = replace(parts, denoise=MaskedDenoise(parts.space, network))
        _, samples, seen = run(reading, TEXTS)
    finally:
        network.reads_level = False
    assert sum(seen) == STEPS * TEXTS
    assert [s.evaluations for s in samples] == [STEPS] * TEXTS


def test_a_network_without_the_level_puts_out_the_same_at_every_level(parts):
    network, space = parts.denoise.network, parts.space
    x = space.table(torch.randint(0, 5, (2, LENGTH)))
    attend = torch.ones(2, LENGTH, dtype=torch.bool)
    known = Conditioning.of(x, ~attend, attend)
    outputs = [
        network(x, Level(torch.full((2,), 1 - m), torch.full((2,), m)), known, x * 0)
        for m in (0.2, 0.9)
    ]
    assert torch.equal(*outputs)


def test_evaluations_of_guidance_branches_add_up():
    one, two = (Spent(torch.tensor(v)) for v in ([1, 2], [10, 20]))
    assert spent(((one, "other"), (two,))).tolist() == [11, 22]
    assert spent((torch.zeros(2), ())) is None


def test_a_nan_of_one_step_ends_sampling_although_tokens_keep_none(parts):
    spoilt = replace(parts, denoise=Spoilt(parts.space, parts.denoise.network))
    with pytest.raises(NonFiniteError, match=r"^text \d of seed 3: "):
        run(spoilt, TEXTS)

"""What a sampling step costs an accelerator beside its network: launches, waits and copies."""

from itertools import islice

import pytest
import torch

from dlmkit import rows
from dlmkit.model import load_model
from dlmkit.noise import Noise
from dlmkit.recipe.assemble import assemble, assemble_sampling
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.requests import Request, unconditional
from dlmkit.sampling.runner import stream
from dlmkit.testing import pretend

REGISTRY = Registry.load(third_party=False)
STEPS = 6
SAMPLERS = [
    entry.component.name
    for entry in REGISTRY.components()
    if entry.component.kind == "sampler" and entry.plugin == "samplers"
]
EXIT = ("exit.use=entropy", "exit.with.threshold=1.0")
FREEZE = ("freeze.use=entropy", "freeze.with.threshold=1.0")
GUIDED = 'guidance=[{"use":"clamped"},{"use":"classifier-free","with":{"scale":1.5}}]'


def shipped(device, *overrides):
    model = load_model("ddlm-mini", overrides, device=device)
    return model.parts, model.config.length


def grammar(device, name):
    torch.manual_seed(0)
    few = ["space.with.counts.tokens=20000"] if name == "elf" else []
    config = load_recipe(f"{name}_grammar", few, REGISTRY).config
    assembly = assemble(config, REGISTRY, device=device)
    assembly.objective.eval()
    return assemble_sampling(assembly), config.length


def turns(model, texts=3, batch_size=3, steps=STEPS):
    """(counts, texts that ended) of every turn of a run."""
    parts, length = model
    running = stream(
        parts,
        unconditional(texts, length),
        seed=0,
        steps=steps,
        batch_size=batch_size,
        length=length,
    )
    found = []
    while True:
        with pretend.counted(sites=True) as seen:
            step = next(running, None)
        if step is None:
            return found
        found.append((seen, len(step.samples)))


def launches(seen, *folders):
    return sum(
        count
        for site, count in seen.sites.items()
        if site.kind == "launch" and any(folder in site.file for folder in folders)
    )


LOOP = ("dlmkit/sampling/", "dlmkit/rows.py")


def free_of_waits(found):
    """Of turns without first steps or texts that end."""
    assert [(seen.waits, seen.copies) for seen, _ in found[1 : STEPS - 1]] == [(0, 0)] * (STEPS - 2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_host_waits_for_no_step_that_ends_nothing(accelerator, sampler):
    found = turns(shipped(accelerator, f"sampler.use={sampler}"))
    free_of_waits(found)
    assert all(launches(seen, *LOOP) <= 12 for seen, _ in found[1 : STEPS - 1])


@pytest.mark.parametrize("name", ["mdlm", "ssd", "plaid", "langflow", "flm", "sflm", "elf"])
def test_nor_with_the_models_of_other_papers(accelerator, name):
    free_of_waits(turns(grammar(accelerator, name)))


def test_nor_with_guidance(accelerator):
    free_of_waits(turns(shipped(accelerator, GUIDED)))


PLACES = {"fixed": "step=4", "fraction": "fraction=0.5", "level": "sigma=4"}


@pytest.mark.parametrize("rule", PLACES)
def test_a_rule_of_a_row_s_place_makes_no_step_wait(accelerator, rule):
    option, value = PLACES[rule].split("=")
    found = turns(shipped(accelerator, f"exit.use={rule}", f"exit.with.{option}={value}"))
    assert 1 < len(found) < STEPS, "all rows end before the grid does"
    assert [(seen.waits, seen.copies) for seen, ended in found[1:] if not ended] == [(0, 0)] * (
        len(found) - 2
    )
    assert [ended for _, ended in found] == [0] * (len(found) - 1) + [3]


@pytest.mark.parametrize("rules", [EXIT, FREEZE, EXIT + FREEZE])
def test_a_step_that_a_rule_may_end_waits_once(accelerator, rules):
    found = turns(shipped(accelerator, *rules))
    plain = [(seen.waits, seen.copies) for seen, ended in found[1:] if not ended]
    assert plain
    assert set(plain) == {(1, 1)}, "one read: the copy that the host waits for"


def test_texts_that_finish_together_are_read_at_once(accelerator):
    model = shipped(accelerator)
    waits = {}
    for texts in (1, 7):
        *_, (seen, ended) = turns(model, texts, batch_size=7, steps=3)
        assert ended == texts
        waits[texts] = seen.waits
    assert waits == {1: 1, 7: 1}


def test_texts_that_rules_halt_are_read_at_once(accelerator):
    """Their reasons too: which of several rules held is in the rules' memory."""
    rules = '[{"use":"fixed","with":{"step":3}},{"use":"entropy","with":{"threshold":0.1}}]'
    found = turns(shipped(accelerator, "exit.use=any", f"exit.with.rules={rules}"), 3)
    seen, ended = found[2]
    assert ended == 3
    assert seen.waits == 2, "whether the rule holds, and the texts"


def test_a_refill_waits_for_nothing(accelerator):
    parts, length = shipped(accelerator)
    running = stream(parts, unconditional(6, length), seed=0, steps=3, batch_size=3, length=length)
    list(islice(running, 3))
    with pretend.counted() as seen:
        next(running)
    assert seen.waits == 0


def test_noise_that_a_sampler_does_not_use_is_never_drawn(accelerator):
    found = turns(shipped(accelerator, "sampler.use=euler"))
    assert [launches(seen, "dlmkit/noise.py") for seen, _ in found[1:STEPS]] == [0] * (STEPS - 1)


def test_noise_of_a_step_takes_25_launches(accelerator):
    found = turns(shipped(accelerator, "sampler.use=ancestral"))
    assert all(0 < launches(seen, "dlmkit/noise.py") <= 25 for seen, _ in found[2:STEPS])


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_draws_take_25_launches(accelerator, draw):
    every = Noise.steps(0, torch.arange(4).to(accelerator), 9)
    position = torch.tensor([3, 0, 8, 1], device=accelerator)
    for _ in range(2):
        with pretend.counted() as seen:
            drawn = getattr(every.at(position).fork(7), draw)(0, (5, 3))
    assert seen.launches <= 25
    plain = Noise.keyed(0, torch.arange(4), position.cpu()).fork(7)
    assert torch.equal(drawn.cpu(), getattr(plain, draw)(0, (5, 3)))


def test_values_come_to_the_host_by_one_copy(accelerator):
    value = {
        "flag": torch.tensor([True, False, True], device=accelerator),
        "ids": torch.arange(6).view(3, 2).to(accelerator),
        "x": (torch.linspace(0, 1, 3).half().to(accelerator), None),
    }
    with pretend.counted() as seen:
        read = rows.on_host(value)
    assert (seen.copies, seen.waits) == (1, 1)
    assert read["flag"].tolist() == [True, False, True]
    assert read["ids"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert read["x"][0].tolist() == [0.0, 0.5, 1.0]
    assert read["x"][1] is None


def test_texts_are_those_of_the_cpu(accelerator):
    """Also where a queue refills slots, texts halt and positions settle."""
    for overrides in ((), EXIT, EXIT + FREEZE):
        found = []
        for device in ("cpu", accelerator):
            parts, length = shipped(device, *overrides)
            asked = [Request.free(i, length - i) for i in range(5)]
            running = stream(parts, asked, seed=1, steps=8, batch_size=2, length=length)
            found.append([step.samples for step in running])
        assert found[0] == found[1]

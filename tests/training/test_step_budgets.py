"""What an optimiser step costs an accelerator beside its network: launches and waits, counted."""

import pytest

from dlmkit.noise import Noise
from dlmkit.recipe.assemble import assemble
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.testing import pretend
from dlmkit.training.draws import TRAINING, draws, micro_batches, stratified
from dlmkit.training.loop import Learner, train
from dlmkit.training.parallel import Single

REGISTRY = Registry.load(third_party=False)
STEPS = 3
NOISE_AND_SCHEDULE = ("dlmkit/noise.py", "training/draws.py", "masking.py", "schedule.py")
NOISE_AND_SCHEDULE += ("schedules.py",)


COUNTED = ("ddlm_small", "elf_grammar")
"""Recipes whose embeddings start from counts of two million tokens."""


def last_step(device, recipe, *overrides):
    """The counts of the last of a few steps."""
    few = ["space.with.counts.tokens=20000"] if recipe in COUNTED else []
    sizes = ["train.batch_size=8", f"train.steps={STEPS}", *few, *overrides]
    config = load_recipe(recipe, sizes, REGISTRY).config
    assembly = assemble(config, REGISTRY, device=device)
    processes = Single(device)
    learner = Learner.begin(assembly.objective.train(), config.train, processes)
    data = assembly.data.stream(config.seed, config.train.batch_size)
    running = train(learner, data, config.train, config.seed, processes)
    for _ in range(STEPS - 1):
        next(running)
    with pretend.counted(sites=True) as seen:
        next(running)
    return seen


def spent(seen):
    """Launches on noise, masks and the schedule."""
    return sum(
        count
        for site, count in seen.sites.items()
        if site.kind == "launch" and site.file.endswith(NOISE_AND_SCHEDULE)
    )


@pytest.mark.parametrize("schedule", ["time-warp-table", "time-warp"])
@pytest.mark.parametrize("recipe", ["ddlm_small", "ddlm_grammar"])
def test_noise_and_schedule_take_150_launches_a_step(accelerator, recipe, schedule):
    seen = last_step(accelerator, recipe, f"schedule.use=cdcd:{schedule}")
    assert 0 < spent(seen) <= 150
    assert seen.waits == 1, "the loss and the norm, read together"


@pytest.mark.parametrize("name", ["mdlm", "ssd", "plaid", "langflow", "flm", "sflm", "elf"])
def test_a_step_of_other_papers_models_waits_once(accelerator, name):
    seen = last_step(accelerator, f"{name}_grammar")
    assert 0 < spent(seen) <= 150
    assert seen.waits == 1


def test_a_step_of_several_passes_waits_once(accelerator):
    assert last_step(accelerator, "ddlm_grammar", "train.micro_batch_size=3").waits == 1


def test_keys_stay_on_the_host_and_numbers_are_those_of_the_device(accelerator):
    """Folding keys launches nothing, nor does one number per row; more take 25 launches."""
    (slots,) = micro_batches(6, None, 1, 0)
    with pretend.counted() as seen:
        u = stratified(0, 4, 6, accelerator)
        noise = draws(0, 4, slots, u).noise.fork(2)
        each = noise.uniform(0)
    assert (seen.launches, seen.waits, seen.copies) == (0, 0, 2)
    assert u.device == each.device == accelerator
    with pretend.counted() as seen:
        many = noise.normal(1, (5, 2))
    assert seen.launches <= 25
    assert (seen.waits, seen.copies) == (0, 1)
    expected = Noise.keyed(0, slots.index(), 4).fork(TRAINING).fork(0).fork(2)
    assert each.cpu().equal(expected.uniform(0))
    assert many.cpu().equal(expected.normal(1, (5, 2)))

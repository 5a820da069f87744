"""The recipes of the published models, trained for a few steps, validated and sampled."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from dlmkit.core.network import Conditioning
from dlmkit.exact.context_gain import Frequencies, context_gain
from dlmkit.model import Run, compose
from dlmkit.noise import Noise
from dlmkit.plugin import Part
from dlmkit.recipe.load import load_recipe

NAMES = ("plaid", "ssd", "langflow", "mdlm", "duo", "sedd", "candi", "flm", "sflm", "elf")
SMALL = (
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
    "train.steps=3",
    "train.warmup_steps=1",
    "train.batch_size=8",
    "train.threads=1",
)

COUNTED = {"elf": ("space.with.counts.tokens=50000",)}
"""Of a recipe whose embeddings start from counts of two million tokens."""


def model(name, *more):
    recipe = load_recipe(f"{name}_grammar", [*SMALL, *COUNTED.get(name, ()), *more]).config
    return compose(**recipe.model_dump(mode="json", by_alias=True))


def at_random(made):
    """``made`` with a network whose layers all say something, as new ones do not."""
    torch.manual_seed(0)
    for weight in made.assembly.network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return made


def log_probabilities(space, prediction):
    return space.logits(prediction.query).double().log_softmax(dim=-1)


@pytest.mark.parametrize("name", NAMES)
def test_recipe_trains_validates_and_samples(name):
    trained = model(name)
    assert all(math.isfinite(record.loss) for record in trained.train())
    data = trained.assembly.data
    batch, frequencies = data.validation(8), Frequencies.count(data, 4000, 64)
    objective = trained.assembly.objective
    reports = list(
        context_gain(objective.denoise(), objective.space, objective.schedule, batch, frequencies)
    )
    # at the highest level the exact context-free denoiser knows the unigram entropy alone
    unigram = -(frequencies.unigram * frequencies.unigram.log()).sum()
    assert reports[-1].context_free == pytest.approx(float(unigram), rel=0.1)
    # where noise takes whole tokens, few of these 256 are lost at the lowest levels
    # and bigrams of 4,000 tokens tell tokens apart badly whose points lie close
    slack = {"duo": 0.1, "elf": 0.5}.get(name, 1e-4)
    assert all(r.bigram <= r.context_free + slack for r in reports)
    assert sum(r.bigram for r in reports) < sum(r.context_free for r in reports)
    assert reports[0].context_free < reports[-1].context_free
    assert all(math.isfinite(report.model) for report in reports)
    texts = trained.sample(3, steps=4, batch_size=3)
    again = trained.sample(2, steps=4, batch_size=1)
    assert [t.text for t in texts[:2]] == [t.text for t in again]
    assert {t.evaluations for t in texts} == {4}


@pytest.mark.parametrize("name", NAMES)
def test_texts_may_be_given_in_part_and_halt_early(name):
    texts = model(name, "exit.use=entropy", "exit.with.threshold=100.0").sample(
        2, prompt="the lamp was", steps=4
    )
    assert all(text.text.startswith("the lamp was") for text in texts)
    assert {(text.steps, text.evaluations) for text in texts} == {(1, 1)}


@pytest.mark.parametrize("name", NAMES)
def test_models_that_drop_conditioning_are_guided_by_what_is_given(name):
    guided = model(name, "objective.with.conditioning_dropout=0.5", "masking.use=cdcd:prefix")
    assert all(math.isfinite(record.loss) for record in guided.train())
    ends = []
    at_random(guided)
    for scale in (1.0, 4.0):
        part = f"guidance=[{{use: classifier-free, with: {{scale: {scale}}}}}]"
        asked = guided.with_(part).requests(1, prompt="the lamp was")
        *_, before, last = guided.with_(part).stream(asked, Run(0, 4, 1))
        ends.append(before.x)
        assert [sample.evaluations for sample in last.samples] == [8]
    assert not torch.allclose(*ends, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_guidance_is_linear_in_x0_or_log_linear_where_tokens_are_drawn(name):
    """p is proportional to p_null^(1 - scale) p^scale (2412.10193), or x0 is null + scale (x0 -
    null); what is given and what is settled stays."""
    parts = at_random(model(name)).assembly
    space, schedule, denoise = parts.space, parts.schedule, parts.objective.denoise()
    noise = Noise.keyed(3, torch.arange(2), 0)
    ids = (noise.uniform(0, (12,)) * space.vocab_size).long()
    given = (torch.arange(12) < 4).expand(2, -1)
    level = schedule.level(schedule.quantile(torch.tensor([0.4, 0.9])))
    with torch.no_grad():
        x0 = space.embed(ids)
        x = space.corruption.corrupt(x0, level, noise)
        known = Conditioning.of(space.corruption.clean(x0), given, torch.ones_like(given))
        null = replace(known, clean=torch.zeros_like(known.clean))
        if name in ("mdlm", "sedd"):  # a given token that is not told is a mask
            null.clean[given] = space.table.weight[-1]
        told, untold = (denoise(x, level, denoise.start(x), c) for c in (known, null))
        log_p, log_null = log_probabilities(space, told), log_probabilities(space, untold)
        assert not torch.allclose(log_p, log_null, atol=1e-2, rtol=0.0)
        for scale in (0.0, 1.0, 2.5):
            part = Part(use="classifier-free", options={"scale": scale})
            guided = parts.build("guidance", part).wrap(denoise)
            said = guided(x, level, guided.start(x), known)
            if name in ("ssd", "mdlm", "duo", "sedd", "candi"):
                log_guided = log_probabilities(space, said)
                expected = (log_null + scale * (log_p - log_null)).log_softmax(dim=-1)
                torch.testing.assert_close(log_guided, expected, atol=2e-4, rtol=1e-4)
                lse = space.logits(said.query).logsumexp(dim=-1)
                torch.testing.assert_close(said.lse, lse)
                moved = space.expect(log_guided.exp())
            else:
                assert torch.equal(said.query, told.query)
                moved = untold.x0_step + scale * (told.x0_step - untold.x0_step)
            stepped, moved = said.x0_step[~given], moved.to(x0)[~given]
            torch.testing.assert_close(stepped, moved, atol=1e-4, rtol=1e-4)
            assert torch.equal(said.x0_step[given], told.x0_step[given])


def test_an_uncovered_position_never_changes():
    masked = model("mdlm")
    mask = masked.assembly.space.corruption.mask
    steps = list(masked.stream(masked.requests(3), Run(0, 6, 3)))
    assert (steps[2].x == mask).any()
    for before, after in itertools.pairwise(steps):
        settled = before.x != mask
        assert torch.equal(before.x[settled], after.x[settled])

"""Which checkpoints are looked at, what needs text, and the sweep of the initial noise."""

import math
from dataclasses import replace

import pytest
import torch

from dlmkit.errors import CheckpointError, DataError, UsageError
from dlmkit.model import Model
from dlmkit.plugin import Part
from dlmkit.recipe.assemble import assemble, assemble_sampling
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry
from dlmkit.training.checkpoint import checkpoint_name, publish
from dlmkit_viewers.study import StudySettings, StudyText, chosen, measure
from dlmkit_viewers.sweep import diversity, sweep, with_scale

WORDS = [
    "network.with.width=16",
    "network.with.heads=2",
    "network.with.blocks=1",
    "space.with.dim=8",
    "sampler={use: euler}",
    "sample.steps=4",
    "guidance=[{use: initial-noise, with: {scale: 3.0}}, {use: renormalised}]",
]


@pytest.fixture(scope="module")
def model():
    """A model that nobody has trained, moved off its start, where every output is the same."""
    registry = Registry.load(third_party=False)
    config = load_recipe("ddlm_grammar", WORDS, registry).config
    assembly = assemble(config, registry)
    assembly.objective.eval()
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in assembly.objective.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=draws)
    return Model(None, assembly, assemble_sampling(assembly))


@pytest.fixture
def run(tmp_path):
    """Five checkpoints that hold nothing."""
    for step in (10, 20, 30, 40, 50):
        publish(tmp_path / "checkpoints", step, lambda folder: (folder / "a").write_text("a"))
    return tmp_path


def steps(folders):
    return [int(folder.name.removeprefix("step-")) for folder in folders]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("last", [50]),
        ("all", [10, 20, 30, 40, 50]),
        ("1", [50]),
        ("2", [10, 50]),
        ("3", [10, 30, 50]),
        ("9", [10, 20, 30, 40, 50]),
    ],
)
def test_checkpoints_of_a_run(run, which, expected):
    assert steps(chosen(run, which)) == expected


def test_a_checkpoint_is_itself(run):
    one = run / "checkpoints" / checkpoint_name(20)
    assert chosen(one, "all") == [one]


def test_refused_checkpoints(run, tmp_path):
    for word in ("some", "0", "-1", "2.5"):
        for folder in (run, run / "checkpoints" / checkpoint_name(20)):
            with pytest.raises(UsageError, match="expected all, last or a number"):
                chosen(folder, word)
    (run / "checkpoints" / checkpoint_name(30) / "a").write_text("b")
    with pytest.raises(CheckpointError, match="step-00000030"):
        chosen(run, "all")
    assert steps(chosen(run, "2")) == [10, 50]


def test_diversity_by_hand():
    found = diversity([(1, 2, 1, 2), (1, 2, 1, 2), (3, 3)])
    assert found["distinct_1"] == pytest.approx(3 / 10)
    assert found["distinct_2"] == pytest.approx(3 / 7)
    assert found["distinct_4"] == pytest.approx(1 / 2)
    assert found["distinct_texts"] == pytest.approx(2 / 3)
    shares = (0.4, 0.4, 0.2)
    assert found["entropy_1"] == pytest.approx(-sum(p * math.log(p) for p in shares))
    assert diversity([]) == {}


def test_the_scale_takes_the_place_of_the_recipes_own(model):
    parts = with_scale(model, 0.5)
    assert [type(part).__name__ for part in parts.guidance] == ["Renormalised", "InitialNoise"]
    assert parts.guidance[-1].scale == 0.5


def test_without_noise_to_start_from_all_texts_are_one(model):
    """The sampler adds none of its own, so diversity must collapse, and only there."""
    settings = {"count": 6, "seed": 0, "steps": 4, "batch_size": 3}
    none, full = sweep(model, (0.0, 1.0), (), **settings)
    assert (none["scale"], none["quality"]) == (0.0, {})
    assert none["diversity"]["distinct_texts"] == pytest.approx(1 / 6)
    assert full["diversity"]["distinct_texts"] > 1 / 6


def test_text_that_is_gone_says_so_and_how_to_do_without(model, tmp_path):
    gone = Part(use="text:text", options={"paths": [str(tmp_path / "gone.txt")]})
    config = model.config.model_copy(update={"data": gone})
    with pytest.raises(DataError, match=r"gone\.txt.*; or leave out what needs text by --no-data"):
        StudyText.of(replace(model, assembly=replace(model.assembly, config=config)), 4)


def test_text_of_another_vocabulary_is_refused(model, tmp_path):
    (tmp_path / "a.txt").write_text("What was written here before was the grammar. " * 200)
    other = Part(
        use="text:text",
        options={"paths": [str(tmp_path / "a.txt")], "tokenizer": {"kind": "characters"}},
    )
    config = model.config.model_copy(update={"data": other})
    with pytest.raises(DataError, match="now gives another vocabulary"):
        StudyText.of(replace(model, assembly=replace(model.assembly, config=config)), 4)


def test_what_is_left_out_is_said(model):
    found = measure(model, StudySettings(count=2, seed=0, steps=3), None)
    assert found["left_out"] == {
        "levels": "left out by --no-data",
        "noise_scale": "no scales were asked for",
    }
    assert found["trajectory"]["steps"] == 3

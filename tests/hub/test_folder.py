"""`dlmkit export`: what the folder holds, and who reads it."""

import json
import shutil
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import dlmkit
from dlmkit.cli.app import main
from dlmkit.errors import CheckpointError
from dlmkit.training.checkpoint import verify

FILES = [
    "README.md",
    "config.json",
    "curves.png",
    "environment.json",
    "manifest.json",
    "model.safetensors",
    "recipe.yaml",
    "tokenizer.json",
    "tokenizer_config.json",
]


def newest(run):
    return run / "checkpoints" / "step-00000004"


def texts(folder, **options):
    return [text.text for text in dlmkit.load(folder, **options).sample(3, seed=1)]


def same_tensors(one, other):
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_it_holds_these_files_and_no_more(exported):
    assert sorted(path.name for path in exported.iterdir()) == FILES
    listed = json.loads((exported / "manifest.json").read_text())["files"]
    assert sorted(listed) == [name for name in FILES if name not in ("README.md", "manifest.json")]


def test_the_average_by_default_the_last_weights_if_asked(run, exported, tmp_path):
    assert same_tensors(exported / "model.safetensors", newest(run) / "ema.safetensors")
    assert main(["export", str(run), str(tmp_path / "raw"), "--weights", "raw"]) == 0
    raw = tmp_path / "raw"
    assert same_tensors(raw / "model.safetensors", newest(run) / "model.safetensors")
    assert not same_tensors(raw / "model.safetensors", exported / "model.safetensors")
    assert json.loads((raw / "config.json").read_text())["weights"] == "raw"
    assert "These are the last weights after step 4" in (raw / "README.md").read_text()
    assert texts(raw)  # without being told which weights


def test_another_way_of_sampling_goes_along(run, tmp_path, capsys):
    words = ["--set", "sampler.use=samplers:euler", "--set", "sample.steps=3"]
    assert main(["export", str(run), str(tmp_path / "other"), *words]) == 0
    found = dlmkit.load(tmp_path / "other")
    assert found.config.sampler.use == "samplers:euler"
    assert texts(tmp_path / "other") == [
        t.text for t in dlmkit.load(run).sample(3, seed=1, sampler="samplers:euler", steps=3)
    ]
    assert main(["export", str(run), str(tmp_path / "x"), "--set", "length=3"]) == 2
    assert "length" in capsys.readouterr().err


def test_the_same_texts_as_the_run(run, exported, capsys):
    assert texts(exported) == texts(run)
    assert main(["sample", str(exported), "-n", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_exported_again_it_is_the_same_to_the_byte(exported, tmp_path):
    assert main(["export", str(exported), str(tmp_path / "again")]) == 0
    for name in FILES:
        if name != "manifest.json":
            assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes(), name
    verify(tmp_path / "again")


def test_weights_that_it_does_not_hold(exported, capsys):
    assert main(["sample", str(exported), "--weights", "raw"]) == 2
    assert "holds the ema weights alone, not the raw ones" in capsys.readouterr().err


def test_the_card(exported, run):
    card = ModelCard.load(exported / "README.md")
    assert card.data.to_dict() == {
        "license": "cc0-1.0",
        "library_name": "dlmkit",
        "pipeline_tag": "text-generation",
        "tags": ["dlmkit", "diffusion", "text-diffusion"],
    }
    parameters = sum(t.numel() for t in dlmkit.load(run).assembly.objective.parameters())
    for words in (
        f"{parameters:,} parameters",
        "texts of up to 32 tokens",
        "`grammar:grammar`",
        "4 of 4 steps of 4 rows",
        "512 tokens",
        "![Loss and context gain](curves.png)",
    ):
        assert words in card.text
    for record in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        if record["kind"] == "validation":
            row = f"| {record['step']} | {record['loss']:.4f} | {record['gain']:.4f} |"
            assert row in card.text
    assert (exported / "recipe.yaml").read_text().strip() in card.text
    assert "No licence has been chosen" not in card.text


def test_of_an_older_checkpoint_the_card_knows_nothing_later(run, tmp_path):
    assert main(["export", str(run / "checkpoints" / "step-00000002"), str(tmp_path / "two")]) == 0
    text = (tmp_path / "two" / "README.md").read_text()
    assert "2 of 4 steps" in text
    assert "| 2 |" in text
    assert "| 4 |" not in text
    assert "No licence has been chosen" in text


def test_of_a_checkpoint_alone(run, tmp_path):
    alone = shutil.copytree(newest(run), tmp_path / "step-00000004")
    assert main(["export", str(alone), str(tmp_path / "out"), "--name", "alone"]) == 0
    assert "curve" not in (tmp_path / "out" / "README.md").read_text()
    assert texts(tmp_path / "out") == texts(run)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_damage_is_found(exported, tmp_path, name):
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{name} has"):
        dlmkit.load(copy)


def test_a_folder_in_use(run, tmp_path):
    (tmp_path / "x").touch()
    assert main(["export", str(run), str(tmp_path)]) == 2
    assert main(["export", str(run), str(tmp_path / "x")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


ACME = """
    from dlmkit import Component, hookimpl
    from dlmkit.core.options import Nothing

    @hookimpl
    def register_components():
        return [Component("masking", "nothing", "nothing", Nothing, "dlmkit_acme:build")]

    def build(config, context):
        from dlmkit_cdcd.masking import NoMasking
        return NoMasking(config, context)
"""


def test_a_plugin_that_is_not_there_is_named_with_its_package(install, site, tmp_path, capsys):
    install("dlmkit-acme", ACME, plugin="acme", version="2.1")
    sets = ["masking.use=acme:nothing", "train.steps=1", "network.with.width=16"]
    sets += ["network.with.heads=2", "network.with.blocks=1", "sample.count=1", "sample.steps=2"]
    words = [word for override in sets for word in ("--set", override)]
    words += ["--set", "metric=[]", "--set", "train.validation_rows=2"]
    assert main(["train", "ddlm_grammar", "--out", str(tmp_path / "run"), *words]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert "pip install dlmkit dlmkit-acme\n" in (tmp_path / "out" / "README.md").read_text()
    capsys.readouterr()
    shutil.rmtree(site / "dlmkit_acme-2.1.dist-info")
    sys.modules.pop("dlmkit_acme")
    for model in ("run", "out"):
        assert main(["sample", str(tmp_path / model)]) == 4
        err = capsys.readouterr().err
        assert "no plugin named 'acme' is installed" in err
        assert "plugin 'acme' of dlmkit-acme 2.1: pip install 'dlmkit-acme==2.1'" in err


def test_neither_a_checkpoint_nor_an_export(run, tmp_path):
    copy = shutil.copytree(newest(run), tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    assert "ema.safetensors" in manifest["files"]
    (copy / "ema.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"ema\.safetensors is missing"):
        dlmkit.load(copy)

"""`dlmkit train` from outside: what a run leaves, how it ends, what a dry run says."""

import json
import math
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import dlmkit, metrics, saved_steps, state

from dlmkit.registry.lookup import Registry
from dlmkit.training.checkpoint import checkpoint_name


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A whole run; nobody writes to it."""
    run = tmp_path_factory.mktemp("train") / "run"
    assert dlmkit("train", tiny, "--out", run) == 0
    return run


def test_a_run_folder_holds_what_reruns_and_explains_it(run):
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert names >= {"checkpoints", "environment.json", "metrics.jsonl", "recipe.yaml", "samples"}
    checkpoint = run / "checkpoints" / checkpoint_name(8)
    assert sorted(str(p.relative_to(checkpoint)) for p in checkpoint.rglob("*") if p.is_file()) == [
        "ema.safetensors", "manifest.json", "model.safetensors", "recipe.yaml", "tokenizer.json",
        "tokenizer_config.json", "training/optimiser.safetensors", "training/state.json",
    ]  # fmt: skip
    assert (checkpoint / "recipe.yaml").read_text() == (run / "recipe.yaml").read_text()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["packages"]["torch"] == version("torch")
    assert environment["attention"][0].startswith("sdpa")
    assert environment["seed"] == 0
    assert environment["threads"] == 1
    assert environment["waiting"].startswith("OMP_WAIT_POLICY")
    loaded = {p.name: p.version for p in Registry.load().plugins}
    assert {p["name"]: p["version"] for p in environment["plugins"]} == loaded


def test_records_come_in_order_and_at_their_steps(run):
    records = [(record["kind"], record["step"]) for record in metrics(run)]
    assert records == [
        ("train", 3), ("validation", 4), ("sample", 4), ("train", 6), ("train", 8),
        ("validation", 8), ("sample", 8),
    ]  # fmt: skip
    assert saved_steps(run) == [4, 6, 8]


def test_validation_is_by_noise_level_and_its_mean_decides_the_best(run):
    validation = [record for record in metrics(run) if record["kind"] == "validation"]
    for record in validation:
        sigmas = [level["sigma"] for level in record["levels"]]
        assert len(sigmas) == 8
        ratios = [b / a for a, b in pairwise(sigmas)]
        assert ratios == pytest.approx([ratios[0]] * 7, rel=1e-4)
        losses = [level["model"] for level in record["levels"]]
        assert record["loss"] == pytest.approx(sum(losses) / 8)
    best = min((record["loss"], record["step"]) for record in validation)
    assert state(run, 8)["state"]["progress"]["best"] == [best[1], best[0]]


def test_samples_are_those_of_the_averaged_weights_at_that_step(run, capsys):
    """Drawn again from the checkpoint, by the command that draws samples."""
    checkpoint = run / "checkpoints" / checkpoint_name(8)
    assert dlmkit("sample", checkpoint, "-n", "2", "--seed", "0", "--json") == 0
    drawn = [sample["text"] for sample in json.loads(capsys.readouterr().out)]
    recorded = [record["texts"] for record in metrics(run) if record["kind"] == "sample"][-1]
    assert drawn == recorded
    written = (run / "samples" / "step-00000008.txt").read_text()
    assert written == "".join(f"--- {i}\n{text}\n" for i, text in enumerate(drawn))


def test_the_best_checkpoint_is_kept(tiny, tmp_path):
    changes = ("train.keep_last=1", "train.checkpoint_every=1", "train.learning_rate=1.0")
    arguments = [x for change in changes for x in ("--set", change)]
    run = tmp_path / "run"
    assert dlmkit("train", tiny, "--out", run, *arguments) == 0
    validation = [record for record in metrics(run) if record["kind"] == "validation"]
    best = min((record["loss"], record["step"]) for record in validation)[1]
    assert saved_steps(run) == sorted({best, 8})


def test_json_is_the_only_thing_on_stdout(tiny, tmp_path, capsys):
    arguments = ("--set", "train.stop_after=2", "--json")
    assert dlmkit("train", tiny, "--out", tmp_path / "run", *arguments) == 0
    ended = json.loads(capsys.readouterr().out)
    assert ended["status"] == "stopped"
    assert (ended["step"], ended["steps"]) == (2, 8)
    assert Path(ended["checkpoint"]).name == checkpoint_name(2)


def test_a_nan_ends_with_7_and_the_last_checkpoint(spied, spies, tmp_path, capsys):
    passes = []

    def poison(network, query, level):
        if network.training and torch.is_grad_enabled():
            passes.append(None)
            if len(passes) == 4:
                query = query.clone()
                query[2] = math.nan
                return query
        return None

    spies.HOOKS["forward"] = poison
    assert dlmkit("train", spied, "--out", tmp_path / "run") == 7
    message = capsys.readouterr().err
    assert "step 4: the loss is nan" in message
    assert "rows of its batch with a non-finite loss: 2 (t = " in message
    assert (
        f"the last checkpoint is {tmp_path / 'run' / 'checkpoints' / checkpoint_name(2)}" in message
    )
    assert "learning_rate" in message
    assert saved_steps(tmp_path / "run") == [2]


def test_the_end_is_measured_by_the_recipes_metrics(tiny, tmp_path):
    run = tmp_path / "run"
    change = ("--set", "metric=[{use: grammar}]")
    assert dlmkit("train", tiny, "--out", run, "--set", "train.steps=2", *change) == 0
    record = metrics(run)[-1]
    assert (record["kind"], record["step"], record["texts"]) == ("metric", 2, 3)
    assert 0.0 <= record["metrics"]["grammar:grammar"]["valid"] <= 1.0


def test_what_fails_between_steps_loses_no_step(spied, spies, tmp_path, capsys):
    def forward(network, query, level):
        if len(query) == 2 and not network.training:
            raise ArithmeticError("a sampler's bug")

    spies.HOOKS["forward"] = forward
    run = tmp_path / "run"
    arguments = (spied, "--out", run, "--set", "train.checkpoint_every=100")
    assert dlmkit("train", *arguments) == 1
    assert "a sampler's bug" in capsys.readouterr().err
    assert saved_steps(run) == [4]
    spies.HOOKS.clear()
    assert dlmkit("train", *arguments, "--resume", "auto") == 0
    assert [r["step"] for r in metrics(run) if r["kind"] == "sample"] == [4, 8]


def test_a_data_error_saves_the_last_whole_step(spied, spies, tmp_path, capsys):
    from dlmkit.errors import DataError

    def read(step):
        if step == 5:
            raise DataError("shard 7 ends early")

    spies.HOOKS["read"] = read
    run = tmp_path / "run"
    assert dlmkit("train", spied, "--out", run) == 5
    assert "shard 7 ends early" in capsys.readouterr().err
    assert saved_steps(run)[-1] == 5
    spies.HOOKS.clear()
    assert dlmkit("train", spied, "--out", run, "--resume", "auto") == 0


def test_activation_checkpointing_changes_no_bit(tiny, run, tmp_path):
    """The recipe differs, so it is another run; the numbers are the same."""
    other = tmp_path / "run"
    key = "train.activation_checkpointing=true"
    assert dlmkit("train", tiny, "--out", other, "--set", key) == 0
    assert state(other, 8) == state(run, 8)


def test_bf16_trains_and_keeps_its_weights_in_fp32(tiny, run, tmp_path):
    other = tmp_path / "run"
    assert dlmkit("train", tiny, "--out", other, "--set", "train.precision=bf16") == 0
    weights = load_file(other / "checkpoints" / checkpoint_name(8) / "model.safetensors")
    assert {t.dtype for t in weights.values() if t.ndim == 2} == {torch.float32}
    first, second = (metrics(r)[0]["loss"] for r in (run, other))
    assert first == pytest.approx(second, rel=0.02)
    assert first != second


@pytest.mark.slow
def test_compiled_blocks_train_alike(tiny, run, tmp_path):
    """In a process of its own, since the shape checks of the tests cannot be compiled."""
    other = tmp_path / "run"
    command = [sys.executable, "-m", "dlmkit", "train", tiny, "--set", "train.compile=true"]
    subprocess.run([*command, "--out", other], check=True)
    for one, two in zip(metrics(run), metrics(other), strict=True):
        if one["kind"] != "sample":
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert dlmkit("train", tiny, "--dry-run", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
    assert report["parameters"] == report["trained"] == 7040 == sum(report["by_part"].values())
    assert report["tokens_per_step"] == 6 * 32
    assert report["tokens"] == 8 * 6 * 32
    assert report["memory_bytes"] == sum(item["bytes"] for item in report["memory"])
    items = {item["what"]: item["bytes"] for item in report["memory"]}
    assert items["weights"] == items["gradients"] == items["EMA"] == 4 * 7040
    assert items["AdamW"] == 8 * 7040
    assert report["attention"][0].startswith("sdpa")
    assert report["compile"] == "off"
    assert dlmkit("train", tiny, "--dry-run") == 0
    assert "7,040" in capsys.readouterr().out

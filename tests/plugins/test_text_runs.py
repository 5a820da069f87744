"""Whole runs on sharded text, by the program: resumes to the bit, and a shard that ends early."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dlmkit.cli.app import main
from dlmkit.training import evaluate
from dlmkit_text import vocabulary

pytestmark = pytest.mark.usefixtures("own_cache", "few_counted")

RECIPE = """\
seed: 3
length: 12
data:
  use: text:c4
  with:
    path: {path}
    tokenizer: {{kind: bytes, size: 300}}
    mode: {mode}
    rows: {rows}
schedule: {{use: cdcd:variance-exploding}}
space: {{use: cdcd:normalised, with: {{dim: 8}}}}
network: {{use: cdcd:transformer, with: {{width: 16, blocks: 1, heads: 1}}}}
masking: {{use: cdcd:prefix}}
objective: {{use: cdcd:score-interpolation}}
train:
  steps: 10
  batch_size: 6
  checkpoint_every: 4
  validate_every: 10
  validation_rows: 4
  sample_every: 10
sample: {{count: 1, steps: 2}}
"""


@pytest.fixture
def few_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read before training begins is little: the rest of a test's text is read by it."""
    monkeypatch.setattr(evaluate, "_COUNTED", 500)
    monkeypatch.setattr(vocabulary, "SAMPLE", 2000)


@pytest.fixture
def recipe(tmp_path: Path, write_shards, texts):
    def make(mode: str = "stream", rows: str = "packed") -> Path:
        write_shards(tmp_path / "c4", texts(150), "train", 2)
        write_shards(tmp_path / "c4", [f"held {t}" for t in texts(20)], "validation", 1)
        path = tmp_path / "c4.yaml"
        path.write_text(RECIPE.format(path=tmp_path / "c4", mode=mode, rows=rows))
        return path

    return make


def train(*arguments: object) -> int:
    return main(["train", *map(str, arguments)])


def weights(run: Path, step: int) -> dict[str, bytes]:
    tensors = load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("mode", "rows"), [("stream", "packed"), ("stream", "padded"), ("prepared", "packed")]
)
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path: Path, recipe, mode: str, rows: str):
    path = recipe(mode, rows)
    assert train(path, "--out", tmp_path / "one") == 0
    assert train(path, "--out", tmp_path / "two", "--set", "train.stop_after=5") == 0
    assert train(path, "--out", tmp_path / "two", "--resume", "auto") == 0
    assert weights(tmp_path / "one", 10) == weights(tmp_path / "two", 10)
    environment = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert f"{tmp_path / 'c4'}: " in environment["data"]
    assert "resumes exactly" in environment["data"]


def test_a_shard_that_ends_early_costs_nothing_that_was_learnt(
    tmp_path: Path, recipe, write_shards, texts, capsys
):
    path, out = recipe(), tmp_path / "run"
    write_shards(tmp_path / "c4", texts(2000), "train", 2)
    options = ("data.with.lanes=1", "data.with.shuffle=1", "train.batch_size=60")
    options = [word for option in options for word in ("--set", option)]
    whole = {shard: shard.read_bytes() for shard in (tmp_path / "c4").glob("c4-train.*")}
    for shard, content in whole.items():
        shard.write_bytes(content[:-900])
    for key in ("steps", "checkpoint_every", "validate_every", "sample_every"):
        options += ["--set", f"train.{key}=400"]
    assert train(path, "--out", out, *options) == 5
    assert "ends early, in line" in capsys.readouterr().err
    (saved,) = (out / "checkpoints").glob("step-*")
    step = int(saved.name[5:])
    assert 10 < step < 400
    early = ["--set", f"train.stop_after={step}"]
    for shard, content in whole.items():
        shard.write_bytes(content)
    assert train(path, "--out", tmp_path / "mended", *options, *early) == 0
    assert weights(out, step) == weights(tmp_path / "mended", step)


def test_other_shards_are_no_resume(tmp_path: Path, recipe, write_shards, texts, capsys):
    path, out = recipe(), tmp_path / "run"
    assert train(path, "--out", out, "--set", "train.stop_after=4") == 0
    write_shards(tmp_path / "c4", texts(160), "train", 2)
    assert train(path, "--out", out, "--resume", "auto") == 5
    assert "these are not the shards that the run was trained on" in capsys.readouterr().err

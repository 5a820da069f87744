"""Streamed and prepared text in real processes: whatever their number, the same rows."""

import importlib.util
import json
from pathlib import Path

import pytest
from launched import launch
from training_runs import metrics

from dlmkit.training.checkpoint import checkpoint_name

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "make_c4_shards.py"
STEPS = 8
CHAIN = ((2, "ddp", 3), (1, "ddp", 5), (2, "fsdp", STEPS))
"""(processes, train.parallel, step to stop after) of one run that changes its layout."""


def job(recipe: str, run: Path, shards: Path, size: int, *changes: str) -> tuple[int, list]:
    # 8 rows: in every number of processes, self-conditioning takes half of them
    sets = ["data.use=text:c4", f"data.with.path={shards}", f"train.steps={STEPS}"]
    sets += ["data.with.tokenizer.kind=bytes", "data.with.tokenizer.size=300"]
    sets += ["train.batch_size=8", "train.log_every=1", *changes]
    sets = [word for change in sets for word in ("--set", change)]
    return size, ["train", recipe, "--out", run, "--resume", "auto", *sets]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory) -> Path:
    """Runs of both modes in one process, and in changing numbers of them."""
    folder = tmp_path_factory.mktemp("text")
    spec = importlib.util.spec_from_file_location("make_c4_shards", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    words = ["the", "old", "harbour", "kept", "its", "lamps", "alight", "for", "all", "boats"]
    texts = [" ".join(words[(i * k + i // 3) % 10] for k in range(9)) + f" {i}" for i in range(600)]
    script.write_shards(folder / "c4", texts, "train", 3)
    jobs = []
    for mode, more in (("stream", ("data.with.lanes=4",)), ("prepared", ())):
        more = (f"data.with.mode={mode}", *more)
        for size, parallel, stop in CHAIN:
            changes = (*more, f"train.parallel={parallel}", f"train.stop_after={stop}")
            jobs.append(job(tiny, folder / f"{mode}-chain", folder / "c4", size, *changes))
        jobs.append(job(tiny, folder / f"{mode}-one", folder / "c4", 1, *more))
    codes = launch(jobs, DLMKIT_CACHE=str(folder / "cache"), RAYON_NUM_THREADS="1")
    assert codes == [[0] * size for size, _ in jobs]
    return folder


@pytest.mark.parametrize("mode", ["stream", "prepared"])
def test_the_number_of_processes_changes_no_row(runs: Path, mode: str):
    records = zip(metrics(runs / f"{mode}-one"), metrics(runs / f"{mode}-chain"), strict=True)
    for alone, other in records:
        assert (other["kind"], other["step"]) == (alone["kind"], alone["step"])
        if alone["kind"] == "train":
            assert other["loss"] == pytest.approx(alone["loss"], rel=1e-5)
            assert other["tokens"] == alone["tokens"]


def test_a_checkpoint_says_where_every_lane_stands(runs: Path):
    states = []
    for name in ("one", "chain"):
        end = runs / f"stream-{name}" / "checkpoints" / checkpoint_name(STEPS)
        states.append(json.loads((end / "training" / "state.json").read_text())["stream"])
    assert states[0] == states[1]
    assert set(states[0]) == {"step", "files", *(f"lane {i}" for i in range(4))}

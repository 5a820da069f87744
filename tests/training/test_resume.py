"""A run that is stopped and resumed writes what one straight run writes, bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import dlmkit, metrics, saved_steps, state

from dlmkit.training.folder import MetricsFile, RunFolder


@pytest.fixture(scope="module")
def straight(tiny, tmp_path_factory):
    """The run that all others must equal; nobody writes to it."""
    run = tmp_path_factory.mktemp("resume") / "straight"
    assert dlmkit("train", tiny, "--out", run) == 0
    return run


def assert_same_end(run: Path, other: Path) -> None:
    assert metrics(run) == metrics(other)
    assert state(run, 8) == state(other, 8)
    for name in ("step-00000004.txt", "step-00000008.txt"):
        assert (run / "samples" / name).read_text() == (other / "samples" / name).read_text()


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_stop_and_resume_equal_a_straight_run(tiny, straight, tmp_path, stop):
    run = tmp_path / "stopped"
    assert dlmkit("train", tiny, "--out", run, "--set", f"train.stop_after={stop}") == 0
    assert saved_steps(run)[-1] == stop
    assert all(record["step"] <= stop for record in metrics(run))
    assert dlmkit("train", tiny, "--out", run, "--resume", "auto") == 0
    assert_same_end(run, straight)


def test_a_run_that_lost_its_last_steps_equals_a_straight_run(tiny, straight, tmp_path):
    """What a kill leaves: later metrics, a torn line, a half-written checkpoint."""
    run = tmp_path / "killed"
    shutil.copytree(straight, run)
    for step in (8, 6):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    half = run / "checkpoints" / ".saving-step-00000006-1234"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "ste')
    assert saved_steps(run) == [4]
    assert dlmkit("train", tiny, "--out", run, "--resume", "auto") == 0
    assert_same_end(run, straight)
    assert not half.exists()


def test_auto_without_a_checkpoint_starts_anew(tiny, straight, tmp_path):
    run = tmp_path / "young"
    run.mkdir()
    shutil.copy(straight / "recipe.yaml", run)
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 9.0}\n')
    assert dlmkit("train", tiny, "--out", run, "--resume", "auto") == 0
    assert_same_end(run, straight)


def test_auto_goes_on_from_whatever_a_start_leaves_behind(tiny, straight, tmp_path):
    """Killed at any moment before the first record: see what is written first."""
    run = tmp_path / "unborn"
    run.mkdir()
    for name in (".lock", ".recipe.yaml.new"):
        (run / name).write_text("half a rec")
        assert dlmkit("train", tiny, "--out", run, "--resume", "auto", "--dry-run") == 0
    assert dlmkit("train", tiny, "--out", run, "--resume", "auto") == 0
    assert_same_end(run, straight)


def test_what_a_kill_left_undeleted_is_deleted_by_the_resume(tiny, straight, tmp_path):
    run = tmp_path / "undeleted"
    shutil.copytree(straight, run)
    keep = ("--set", "train.keep_last=1")
    assert dlmkit("train", tiny, "--out", run, "--resume", "auto", *keep) == 0
    assert len(saved_steps(run)) <= 2  # the last, and the best if it is another
    assert saved_steps(run)[-1] == 8


def test_a_finished_run_resumes_to_itself(tiny, straight, tmp_path, capsys):
    before = (straight / "metrics.jsonl").read_bytes()
    assert dlmkit("train", tiny, "--resume", straight, "--json") == 0
    ended = json.loads(capsys.readouterr().out)
    assert (ended["status"], ended["step"]) == ("finished", 8)
    assert (straight / "metrics.jsonl").read_bytes() == before


def test_a_branch_from_a_checkpoint_equals_the_straight_run(tiny, straight, tmp_path):
    run = tmp_path / "branch"
    checkpoint = straight / "checkpoints" / "step-00000004"
    assert dlmkit("train", tiny, "--resume", checkpoint, "--out", run) == 0
    assert metrics(run) == metrics(straight)
    assert state(run, 8) == state(straight, 8)


def test_a_run_reruns_from_its_own_recipe(straight, tmp_path):
    run = tmp_path / "again"
    assert dlmkit("train", straight / "recipe.yaml", "--out", run) == 0
    assert_same_end(run, straight)
    assert (run / "recipe.yaml").read_text() == (straight / "recipe.yaml").read_text()


def test_the_state_of_a_stream_is_that_of_the_rows_trained_on(spied, tmp_path):
    run = tmp_path / "stream"
    for stop in (3, 8):
        assert (
            dlmkit(
                "train",
                spied,
                "--out",
                run,
                "--resume",
                "auto",
                "--set",
                f"train.stop_after={stop}",
            )
            == 0
        )
        assert state(run, stop)["state"]["stream"] == {"reads": stop}


def test_metrics_are_rewound_to_the_step_and_what_is_pending_there(tmp_path):
    run = RunFolder(tmp_path)
    file = MetricsFile(run)
    for step in (1, 2, 3):
        for kind in ("train", "validation", "sample", "checkpoint"):
            file.log({"kind": kind, "step": step})
    file.close()
    run.rewind(2, ("sample",))
    kept = [tuple(json.loads(x).values()) for x in (tmp_path / "metrics.jsonl").open()]
    train, validation, sample = "train", "validation", "sample"
    assert kept == [(train, 1), (validation, 1), (sample, 1), (train, 2), (validation, 2)]


def test_a_resume_elsewhere_says_in_one_sentence_what_changed(tiny, tmp_path, capsys):
    run = tmp_path / "moved"
    assert dlmkit("train", tiny, "--out", run, "--set", "train.stop_after=1") == 0
    path = run / "environment.json"
    before = json.loads(path.read_text())
    packages = {name: "0.0" for name in before["packages"]}
    path.write_text(json.dumps({**before, "dlmkit": "0.0", "packages": packages}))
    capsys.readouterr()
    assert dlmkit("train", tiny, "--out", run, "--resume", "auto") == 0
    (note,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("note")]
    assert note.startswith(
        "note: the run began in another environment, so results may differ from those of a "
        f"straight run: dlmkit: 0.0 -> {before['dlmkit']}, torch: 0.0 -> "
    )
    assert note.endswith(" more (environment.json holds both)")


def test_another_process_in_the_same_run_is_refused(tiny, tmp_path, capsys):
    with RunFolder(tmp_path / "busy").locked():
        assert dlmkit("train", tiny, "--out", tmp_path / "busy") == 2
    assert "another process is training in" in capsys.readouterr().err
    assert dlmkit("train", tiny, "--out", tmp_path / "busy", "--set", "train.steps=1") == 0


@pytest.mark.slow
def test_kill_9_in_the_middle_of_a_run(tiny, tmp_path):
    command = [sys.executable, "-m", "dlmkit", "train", tiny, "--set", "train.steps=60"]
    run, other = tmp_path / "killed", tmp_path / "whole"
    for _ in range(2):
        process = subprocess.Popen(
            [*command, "--out", run, "--resume", "auto"], stderr=subprocess.DEVNULL
        )
        reached = max(saved_steps(run), default=0) + 6 if run.exists() else 6
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if (run / "checkpoints").exists() and max(saved_steps(run), default=0) >= reached:
                break
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, "--out", run, "--resume", "auto"], check=True)
    subprocess.run([*command, "--out", other], check=True)
    assert metrics(run) == metrics(other)
    assert state(run, 60) == state(other, 60)

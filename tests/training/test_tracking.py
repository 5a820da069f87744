"""Trackers get every record and can never stop a run."""

import json
import sys
from dataclasses import asdict

import pytest
from training_runs import dlmkit, metrics, state

from dlmkit.training.loop import StepRecord
from dlmkit.training.tracking import Progress, StepWindow


@pytest.mark.parametrize("broken", ["open", "log", "close"])
@pytest.mark.parametrize("fault", [ValueError("no network"), SystemExit(3)])
def test_a_fault_is_reported_once_and_the_run_goes_on(
    spied, spies, tiny, tmp_path, capsys, broken, fault
):
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        raise fault

    spies.HOOKS[broken] = fail
    assert dlmkit("train", spied, "--out", tmp_path / "run") == 0
    message = capsys.readouterr().err
    assert message.count("tracker spies:spied failed to " + broken) == 1
    assert len(calls) == 1
    assert [r["step"] for r in metrics(tmp_path / "run") if r["kind"] == "train"] == [3, 6, 8]


def test_a_tracker_sees_what_metrics_jsonl_holds(spied, spies, tmp_path):
    seen, opened, closed = [], [], []
    spies.HOOKS.update(
        log=seen.append, open=lambda *a: opened.append(a), close=lambda: closed.append(1)
    )
    run = tmp_path / "run"
    assert dlmkit("train", spied, "--out", run) == 0
    assert seen == [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ((folder, recipe),) = opened
    assert folder == run
    assert recipe["train"]["steps"] == 8
    assert closed == [1]


def test_a_tracker_may_change_in_a_resume_and_changes_no_weight(spied, spies, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    assert dlmkit("train", spied, "--out", run, "--set", "train.stop_after=3") == 0
    change = ("--set", "tracker=[{use: other}]")
    assert dlmkit("train", spied, "--out", run, "--resume", "auto", *change) == 0
    assert dlmkit("train", spied, "--out", other) == 0
    assert state(run, 8) == state(other, 8)


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_missing_library_is_told_before_any_work(tiny, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setitem(sys.modules, name, None)
    change = ("--set", f"tracker=[{{use: {name}}}]")
    assert dlmkit("train", tiny, "--out", tmp_path / "run", *change) == 4
    assert f"pip install 'dlmkit[{name}]'" in capsys.readouterr().err
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def record(step: int, loss: float) -> StepRecord:
    return StepRecord(step, loss, 2.0, 0.1, 100, 0.5, 0.125)


def test_a_window_averages_its_steps_and_adds_up_the_run():
    window = StepWindow()
    for step, loss in ((1, 3.0), (2, 5.0)):
        window.add(record(step, loss))
    first = window.flush(record(2, 5.0))
    assert first["loss"] == 4.0
    assert (first["tokens"], first["seconds"]) == (200, 1.0)
    assert (first["tokens_per_second"], first["data_share"]) == (200.0, 0.25)
    window.add(record(3, 1.0))
    second = window.flush(record(3, 1.0))
    assert (second["loss"], second["tokens"]) == (1.0, 300)


def test_progress_survives_json():
    progress = Progress(best=(4, 1 / 3), pending=("sample",), processes=2)
    progress.window.add(record(1, 0.1))
    again = Progress.of(json.loads(json.dumps(progress.json())))
    assert again == progress
    assert asdict(again.window) == asdict(progress.window)

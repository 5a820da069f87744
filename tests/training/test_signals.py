"""SIGTERM and SIGINT in every phase: one save at the next safe point, and the documented exit."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from training_runs import dlmkit, metrics, saved_steps, state

from dlmkit.training import session
from dlmkit.training.signals import StopSignals


def ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def publishes(monkeypatch):
    """The steps that were saved, in order."""
    steps = []
    publish = session.publish

    def counted(parent, step, write):
        steps.append(step)
        return publish(parent, step, write)

    monkeypatch.setattr(session, "publish", counted)
    return steps


def arrange(spies, phase: str, action) -> None:
    """Call ``action`` once, when a run is in ``phase``."""
    done = []

    def once(*arguments):
        if not done:
            done.append(True)
            action()

    def read(step):
        if step == 3:
            once()

    def forward(network, query, level):
        rows = len(query)
        wanted = {"step": network.training and rows == 6, "validation": rows == 4}
        if wanted.get(phase, rows == 2 and not network.training):
            once()

    hook = {"data": {"read": read}, "setup": {"build": once}}.get(phase, {"forward": forward})
    spies.HOOKS.update(hook)


@pytest.mark.parametrize(
    ("phase", "steps"),
    [("data", {0, 1, 2, 3}), ("step", {1}), ("validation", {4}), ("sampling", {4})],
)
def test_sigterm_saves_once_and_the_resume_is_as_if_it_had_not_happened(
    spied, spies, publishes, tmp_path, phase, steps, capsys
):
    straight, run = tmp_path / "straight", tmp_path / "run"
    every = ("--set", "train.checkpoint_every=100")
    assert dlmkit("train", spied, "--out", straight, *every) == 0
    publishes.clear()
    arrange(spies, phase, ask)
    assert dlmkit("train", spied, "--out", run, *every) == 75
    (step,) = publishes
    assert step in steps  # data is read some steps ahead
    assert saved_steps(run) == [step]
    assert f"SIGTERM: saved step {step} of 8" in capsys.readouterr().err
    spies.HOOKS.clear()
    assert dlmkit("train", spied, "--out", run, "--resume", "auto", *every) == 0
    assert metrics(run) == metrics(straight)
    assert state(run, 8) == state(straight, 8)


@pytest.mark.parametrize("phase", ["data", "validation", "sampling"])
def test_the_reaction_does_not_wait_for_a_slow_phase(spied, spies, tmp_path, phase):
    """The signal comes when a phase has most of its work to go, and the run ends before it."""
    asked, evaluated, over, ended = [], [], [], threading.Event()

    def slow():
        asked.append(phase)
        ask()
        if phase == "data":
            ended.wait(600)  # in the feed's own thread; set below, unless the run waits for it
            over.append(phase)

    arrange(spies, phase, slow)
    if phase != "data":
        first = spies.HOOKS["forward"]

        def forward(network, query, level):
            if asked and not network.training:
                evaluated.append(level)  # a phase has about a hundred of them
            first(network, query, level)

        spies.HOOKS["forward"] = forward
    code = dlmkit(
        "train", spied, "--out", tmp_path / "run", "--set", "train.sample_every=100",
        "--set", "train.validate_every=2" if phase == "validation" else "train.sample_every=2",
        "--set", "sample.steps=100",
    )  # fmt: skip
    finished = bool(over)
    ended.set()
    assert code == 75
    assert asked
    assert not finished
    assert len(evaluated) < 10


def test_sigint_saves_and_exits_130(spied, spies, publishes, tmp_path, capsys):
    arrange(spies, "step", lambda: ask(signal.SIGINT))
    assert dlmkit("train", spied, "--out", tmp_path / "run") == 130
    assert publishes == [1]
    assert "SIGINT: saved step 1 of 8" in capsys.readouterr().err


def test_a_signal_while_saving_finishes_that_save_and_no_other(
    spied, spies, publishes, monkeypatch, tmp_path
):
    write = session.write_checkpoint

    def interrupted(*arguments):
        ask()
        write(*arguments)

    monkeypatch.setattr(session, "write_checkpoint", interrupted)
    assert dlmkit("train", spied, "--out", tmp_path / "run") == 75
    assert publishes == [2] == saved_steps(tmp_path / "run")


def test_before_the_first_step_there_is_nothing_to_save(spied, spies, publishes, tmp_path, capsys):
    arrange(spies, "setup", ask)
    assert dlmkit("train", spied, "--out", tmp_path / "run") == 75
    assert publishes == []
    assert "before the first step; nothing was lost" in capsys.readouterr().err
    spies.HOOKS.clear()
    assert dlmkit("train", spied, "--out", tmp_path / "run", "--resume", "auto") == 0


def test_a_signal_in_the_last_step_changes_nothing(spied, spies, publishes, tmp_path):
    spies.HOOKS["log"] = lambda record: ask() if record["step"] == 8 else None
    assert dlmkit("train", spied, "--out", tmp_path / "run") == 75
    assert saved_steps(tmp_path / "run")[-1] == 8
    spies.HOOKS.clear()
    assert dlmkit("train", spied, "--out", tmp_path / "run", "--resume", "auto") == 0


def test_the_handlers_of_others_come_back(tiny, tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert dlmkit("train", tiny, "--out", tmp_path / "run", "--set", "train.steps=1") == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_under_torchrun_a_signal_that_is_passed_on_is_no_second_one(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    with StopSignals() as stop:
        stop.defer()
        ask()
        ask()
        assert stop.name == "SIGTERM"


def test_signals_that_are_ignored_stay_so():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        with StopSignals() as stop:
            stop.ignore()
            ask()
            assert stop.name is None
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)


def test_the_second_signal_ends_the_process_at_once():
    source = """
        import os, signal, time
        from dlmkit.training.signals import StopSignals
        with StopSignals() as stop:
            stop.defer()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop() and stop.name == "SIGTERM"
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 128 + signal.SIGTERM
    assert b"stopped at once" in ended.stderr

"""One training run: it is launched, the session is driven, and its end is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlmkit.errors import Preempted
from dlmkit.recipe.load import Resolved
from dlmkit.registry.lookup import Registry
from dlmkit.training.console import display
from dlmkit.training.launch import Launch
from dlmkit.training.memory import keep_freed
from dlmkit.training.parallel import World, world
from dlmkit.training.session import Session
from dlmkit.training.signals import StopSignals


@dataclass(frozen=True)
class Ended:
    """How a run ended: ``status`` is finished or stopped (at ``train.stop_after``).

    ``best`` is the step with the lowest validation loss, and that loss.
    """

    run: Path
    checkpoint: Path
    status: str
    step: int
    steps: int
    tokens: int
    best: tuple[int, float] | None

    def json(self) -> dict[str, Any]:
        """As JSON."""
        values = dataclasses.asdict(self)
        return {**values, "run": str(self.run), "checkpoint": str(self.checkpoint)}


def run(
    resolved: Resolved,
    registry: Registry,
    stop: StopSignals,
    *,
    out: Path | None = None,
    resume: str | None = None,
) -> Ended | None:
    """Train ``resolved`` in ``out``, or go on where ``resume`` (auto, a run or checkpoint) ended.

    Returns None in all processes but the first. An error of one process ends them all with its
    exit code, and the first one tells it.

    Raises Preempted after SIGTERM and KeyboardInterrupt after SIGINT, both once a checkpoint is
    saved, beside what :class:`Launch` and the loop raise.
    """
    train = resolved.config.train
    if train.threads is not None:
        torch.set_num_threads(train.threads)
    with world(train.parallel) as processes, ExitStack() as stack:
        if processes.device.type == "cpu":
            keep_freed()
        launch = Launch(resolved, registry, stop, processes, display(processes.first))
        try:
            start = launch.place(out, resume)
            launch.lock(start, stack)
            session = launch.session(start)
            for consumer in session.consumers:
                stack.callback(consumer.close)
            stop.defer()
            session.go()
            signal = next(filter(None, processes.share(stop.name)), None)
        except Exception as error:
            if error is processes.agreed:
                _leave(processes, stop)
            raise
        _leave(processes, stop)
        if signal is not None and not session.finished:
            _stopped(signal, session)
        return _ended(session) if processes.first else None


def _leave(processes: World, stop: StopSignals) -> None:
    """All processes end together, each with its own exit code."""
    if processes.size > 1:
        stop.ignore()
        processes.barrier()


def _stopped(name: str, session: Session) -> None:
    if not session.world.first:
        raise KeyboardInterrupt if name == "SIGINT" else SystemExit(Preempted.exit_code)
    message = (
        f"{name}: saved step {session.learner.step} of {session.train.steps} in "
        f"{session.checkpoint}; continue with --resume auto --out {session.run.path}"
    )
    if name == "SIGINT":
        session.display.say(message)
        raise KeyboardInterrupt
    raise Preempted(message)


def _ended(session: Session) -> Ended:
    checkpoint = session.checkpoint
    assert checkpoint is not None
    return Ended(
        run=session.run.path,
        checkpoint=checkpoint,
        status="finished" if session.learner.step == session.train.steps else "stopped",
        step=session.learner.step,
        steps=session.train.steps,
        tokens=session.progress.window.total_tokens,
        best=session.progress.best,
    )


def describe_end(ended: Ended) -> Sequence[str]:
    """The end of a run in words, one line each."""
    lines = [f"{ended.status} at step {ended.step} of {ended.steps}: {ended.checkpoint}"]
    if ended.best is not None:
        lines.append(f"best validation: {ended.best[1]:.4f} nats/token at step {ended.best[0]}")
    return lines

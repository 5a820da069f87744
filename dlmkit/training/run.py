"""One training run: everything is set up, the session is driven, and its end is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.start import text_starts
from dlmkit.errors import Preempted
from dlmkit.recipe.assemble import Assembly, assemble
from dlmkit.recipe.load import Resolved
from dlmkit.registry.lookup import Registry
from dlmkit.training.base import start_from
from dlmkit.training.checkpoint import set_aside, step_of, sweep
from dlmkit.training.console import Display, display
from dlmkit.training.curves import Curves
from dlmkit.training.draws import micro_batches
from dlmkit.training.environment import changed, environment
from dlmkit.training.evaluate import Evaluator
from dlmkit.training.folder import ENVIRONMENT, MetricsFile, RunFolder
from dlmkit.training.loop import Learner
from dlmkit.training.memory import keep_freed
from dlmkit.training.needs import refuse_too_large
from dlmkit.training.parallel import World, world
from dlmkit.training.session import Session
from dlmkit.training.signals import StopSignals
from dlmkit.training.start import Start, plan_start
from dlmkit.training.state import restore
from dlmkit.training.tracking import Consumer, Guarded, Progress
from dlmkit.training.units import prepare_units


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
    saved, beside what :func:`plan_start`, :func:`assemble` and :func:`train` raise.
    """
    train = resolved.config.train
    if train.threads is not None:
        torch.set_num_threads(train.threads)
    with world(train.parallel) as processes, ExitStack() as stack:
        if processes.device.type == "cpu":
            keep_freed()
        try:
            session, name = _trained(resolved, registry, stop, out, resume, processes, stack)
        except Exception as error:
            if error is processes.agreed:
                _leave(processes, stop)
            raise
        _leave(processes, stop)
        if name is not None and not session.finished:
            _stopped(name, session)
        return _ended(session) if processes.first else None


def _leave(processes: World, stop: StopSignals) -> None:
    """All processes end together, each with its own exit code."""
    if processes.size > 1:
        stop.ignore()
        processes.barrier()


def _trained(
    resolved: Resolved,
    registry: Registry,
    stop: StopSignals,
    out: Path | None,
    resume: str | None,
    processes: World,
    stack: ExitStack,
) -> tuple[Session, str | None]:
    """The session at its end, and the signal that ended it in some process, if one did."""
    start = processes.lead(lambda: plan_start(resolved, out, resume, registry))
    processes.together(lambda: stack.enter_context(start.run.locked()) if processes.first else None)
    shown = display(processes.first)
    session = _session(resolved, registry, start, processes, stop, shown)
    for consumer in session.consumers:
        stack.callback(consumer.close)
    stop.defer()
    session.go()
    return session, next(filter(None, processes.share(stop.name)), None)


def _session(
    resolved: Resolved,
    registry: Registry,
    start: Start,
    processes: World,
    stop: StopSignals,
    shown: Display,
) -> Session:
    config, first = resolved.config, processes.first
    processes.together(
        lambda: micro_batches(
            config.train.batch_size, config.train.micro_batch_size, processes.size, 0
        )
    )
    trackers = processes.together(lambda: _trackers(resolved, registry, shown) if first else [])
    device, folder = processes.device, start.checkpoint
    assembly = processes.in_turns(
        lambda: assemble(config, registry, device=device, folder=folder, start=first)
    )
    if folder is None:
        processes.in_turns(lambda: start_from(assembly))
    if folder is None:  # the first process has read the text for all
        for part in text_starts(assembly.objective):
            processes.spread(part)
    processes.together(lambda: refuse_too_large(assembly, config.train, processes))
    learner = Learner.begin(assembly.objective, config.train, processes)
    return processes.together(
        lambda: _prepared(resolved, start, assembly, learner, processes, stop, shown, trackers)
    )


def _prepared(
    resolved: Resolved,
    start: Start,
    assembly: Assembly,
    learner: Learner,
    processes: World,
    stop: StopSignals,
    shown: Display,
    trackers: Sequence[Guarded],
) -> Session:
    """The session of ``learner``, which is put where ``start`` says. Not collective."""
    config = resolved.config
    assert assembly.data is not None
    stream = assembly.data.stream(config.seed, config.train.batch_size)
    progress, saved = Progress(), None
    if start.checkpoint is not None:
        progress = Progress.of(restore(learner, start.checkpoint, processes))
        if learner.step:  # before the first one, nothing has been read
            stream.restore(learner.stream_state)
        saved = learner.step if start.source == start.run.path else None
    evaluator = None
    if processes.first:
        evaluator = Evaluator.of(assembly, learner.ema.objective, stop)
    prepare_units(assembly.network, config.train, processes.device)
    consumers: list[Consumer] = [shown]
    if processes.first:
        _open(start, resolved, assembly, progress, processes, shown)
        consumers += [MetricsFile(start.run), Curves(start.run, shown.say), *trackers]
        for tracker in trackers:
            tracker.open(start.run.path, config.model_dump(mode="json", by_alias=True))
    return Session(
        resolved,
        start.run,
        learner,
        stream,
        assembly.tokenizer,
        evaluator,
        dataclasses.replace(progress, processes=processes.size),
        processes,
        stop,
        shown,
        consumers,
        saved,
    )


def _trackers(resolved: Resolved, registry: Registry, shown: Display) -> list[Guarded]:
    """The recipe's trackers. A missing library is told here, before any work."""
    context = BuildContext(length=resolved.config.length, seed=resolved.config.seed)
    return [
        Guarded(part.use, registry.build("tracker", part, context), shown.say)
        for part in resolved.config.tracker
    ]


def _open(
    start: Start,
    resolved: Resolved,
    assembly: Assembly,
    progress: Progress,
    processes: World,
    shown: Display,
) -> None:
    """Bring the run folder to where the run goes on, and say so."""
    folder = start.run
    folder.write_recipe(resolved.text())  # first: it tells a run from a stranger's folder
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    sweep(folder.checkpoints)
    for path in start.damaged:
        shown.say(f"{path} is damaged and now called {set_aside(path).name}")
    now = environment(assembly.registry, resolved.config.seed, assembly.network, processes)
    assert assembly.data is not None
    now["data"] = assembly.data.describe()
    step = 0
    if start.checkpoint is not None:
        step = step_of(start.checkpoint) or 0
        shown.say(f"going on from {start.checkpoint}")
        _warn(RunFolder(start.source or folder.path), now, shown)
    folder.rewind(step, progress.pending, start.source)
    folder.write_environment(now)
    parameters = sum(p.numel() for p in assembly.objective.parameters())
    shown.say(f"data: {now['data']}")
    shown.say(
        f"training {parameters:,} parameters on {now['device']}"
        f"{f' x {processes.size}' if processes.size > 1 else ''}, attention "
        f"{', '.join(now['attention']) or 'of its own'}; run folder {folder.path}"
    )


def _warn(source: RunFolder, now: dict[str, Any], shown: Display) -> None:
    before = source.read_environment()
    notes = changed(before, now) if before else []
    if notes:
        rest = f" and {len(notes) - 3} more" if len(notes) > 3 else ""
        shown.say(
            "note: the run began in another environment, so results may differ from those of a "
            f"straight run: {', '.join(notes[:3])}{rest} ({ENVIRONMENT} holds both)"
        )


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

"""The start of a training run, in named steps: its place, its model, its learner, its session."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmkit.core.context import BuildContext
from dlmkit.core.start import text_starts
from dlmkit.recipe.assemble import Assembly, assemble
from dlmkit.recipe.load import Resolved
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.registry.lookup import Registry
from dlmkit.training.base import start_from
from dlmkit.training.checkpoint import set_aside, step_of, sweep
from dlmkit.training.console import Display
from dlmkit.training.curves import CurvesPicture
from dlmkit.training.draws import micro_batches
from dlmkit.training.environment import changed, environment
from dlmkit.training.evaluate import Evaluator
from dlmkit.training.folder import ENVIRONMENT, MetricsFile, RunFolder, read_environment
from dlmkit.training.learner import Learner
from dlmkit.training.needs import parameter_count, refuse_too_large
from dlmkit.training.parallel import World
from dlmkit.training.session import Session
from dlmkit.training.signals import StopSignals
from dlmkit.training.start import Start, plan_start
from dlmkit.training.state import restore
from dlmkit.training.tracking import Consumer, Guarded, Progress
from dlmkit.training.units import prepare_units


@dataclass(frozen=True)
class Launch:
    """One process's part in the start of a run: what every step of it needs.

    ``place``, ``lock`` and ``session`` are called in this order, by all processes. What one of
    them may fail at alone is done through ``world``, so that all end.
    """

    resolved: Resolved
    registry: Registry
    stop: StopSignals
    world: World
    display: Display

    @property
    def config(self) -> RecipeConfig:
        """The recipe."""
        return self.resolved.config

    def place(self, out: Path | None, resume: str | None) -> Start:
        """What ``--out`` and ``--resume`` mean. Raises what :func:`plan_start` does."""
        return self.world.lead(lambda: plan_start(self.resolved, out, resume, self.registry))

    def lock(self, start: Start, stack: ExitStack) -> None:
        """Keep other runs out of the folder until ``stack`` closes."""
        lock = start.run.locked
        self.world.together(lambda: stack.enter_context(lock()) if self.world.first else None)

    def session(self, start: Start) -> Session:
        """All that trains, put where ``start`` says."""
        train, world = self.config.train, self.world
        world.together(
            lambda: micro_batches(train.batch_size, train.micro_batch_size, world.size, 0)
        )
        trackers = world.together(self.trackers)
        assembly = self.model(start)
        learner = Learner.begin(assembly.objective, train, world)
        return world.together(lambda: self.placed(start, assembly, learner, trackers))

    def trackers(self) -> list[Guarded]:
        """The recipe's trackers, in the first process. A missing library is told here, before any
        work."""
        context = BuildContext(length=self.config.length, seed=self.config.seed)
        return [
            Guarded(part.use, self.registry.build("tracker", part, context), self.display.say)
            for part in self.config.tracker
            if self.world.first
        ]

    def model(self, start: Start) -> Assembly:
        """The recipe's parts: with fresh weights, another model's, or those of a checkpoint to
        come, and certain to fit in memory."""
        world, folder = self.world, start.checkpoint
        assembly = world.in_turns(
            lambda: assemble(
                self.config, self.registry, device=world.device, folder=folder, start=world.first
            )
        )
        if folder is None:
            world.in_turns(lambda: start_from(assembly))
            for part in text_starts(assembly.objective):
                world.spread(part)  # the first process has read the text for all
        world.together(lambda: refuse_too_large(assembly, self.config.train, world))
        return assembly

    def placed(
        self, start: Start, assembly: Assembly, learner: Learner, trackers: Sequence[Guarded]
    ) -> Session:
        """The session of ``learner``, with its data and its folder where ``start`` says. Not
        collective."""
        assert assembly.data is not None
        stream = assembly.data.stream(self.config.seed, self.config.train.batch_size)
        progress, saved = Progress(), None
        if start.checkpoint is not None:
            progress = Progress.of(restore(learner, start.checkpoint, self.world))
            if learner.step:  # before the first one, nothing has been read
                stream.restore(learner.stream_state)
            saved = learner.step if start.source == start.run.path else None
        evaluator, consumers = None, list[Consumer]([self.display])
        if self.world.first:
            evaluator = Evaluator.of(assembly, learner.ema.objective, self.stop)
        prepare_units(assembly.network, self.config.train, self.world.device)
        if self.world.first:
            self.open(start, assembly, progress)
            consumers += [
                MetricsFile(start.run),
                CurvesPicture(start.run, self.display.say),
                *trackers,
            ]
            for tracker in trackers:
                recipe = self.config.model_dump(mode="json", by_alias=True)
                tracker.open(start.run.path, recipe)
        progress.processes = self.world.size
        return Session(
            resolved=self.resolved,
            run=start.run,
            learner=learner,
            stream=stream,
            tokenizer=assembly.tokenizer,
            evaluator=evaluator,
            progress=progress,
            world=self.world,
            stop=self.stop,
            display=self.display,
            consumers=consumers,
            saved=saved,
        )

    def open(self, start: Start, assembly: Assembly, progress: Progress) -> None:
        """Bring the run folder to where the run goes on, and say so."""
        folder, say, world = start.run, self.display.say, self.world
        folder.write_recipe(self.resolved.text())  # first: it tells a run from a stranger's folder
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        sweep(folder.checkpoints)
        for path in start.damaged:
            say(f"{path} is damaged and now called {set_aside(path).name}")
        now = environment(assembly.registry, self.config.seed, assembly.network, world)
        assert assembly.data is not None
        now["data"] = assembly.data.describe()
        step = 0
        if start.checkpoint is not None:
            step = step_of(start.checkpoint) or 0
            say(f"going on from {start.checkpoint}")
            self.warn(RunFolder(start.source or folder.path), now)
        folder.rewind(step, progress.pending, start.source)
        folder.write_environment(now)
        objective = assembly.objective
        trained, count = parameter_count(objective, trained=True), parameter_count(objective)
        say(f"data: {now['data']}")
        say(
            f"training {f'{trained:,} of ' if trained < count else ''}{count:,} parameters on "
            f"{now['device']}"
            f"{f' x {world.size}' if world.size > 1 else ''}, attention "
            f"{', '.join(now['attention']) or 'of its own'}; run folder {folder.path}"
        )

    def warn(self, source: RunFolder, now: dict[str, Any]) -> None:
        """Say where the environment is another than when the run began."""
        before = read_environment(source.path)
        notes = changed(before, now) if before else []
        if notes:
            rest = f" and {len(notes) - 3} more" if len(notes) > 3 else ""
            self.display.say(
                "note: the run began in another environment, so results may differ from those of "
                f"a straight run: {', '.join(notes[:3])}{rest} ({ENVIRONMENT} holds both)"
            )

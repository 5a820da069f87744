"""What happens around the loop: records, validation, samples and checkpoints at step boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlmkit.core.data import Stream, united
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import DataError, NonFiniteLossError
from dlmkit.recipe.load import Resolved
from dlmkit.recipe.schema import TrainConfig
from dlmkit.training.checkpoint import checkpoint_name, prune, publish, step_of
from dlmkit.training.console import Display
from dlmkit.training.evaluate import Evaluator
from dlmkit.training.folder import RunFolder
from dlmkit.training.learner import Learner
from dlmkit.training.loop import StepRecord, train
from dlmkit.training.parallel import Sharded, World
from dlmkit.training.saving import Saving
from dlmkit.training.signals import Stopped, StopSignals
from dlmkit.training.state import Captured, capture, sharded, tensors_of, write_checkpoint
from dlmkit.training.tracking import Consumer, Progress


@dataclass
class Session:
    """One process's part in one run, from a start or a resume to an end.

    Only the first process has an ``evaluator``, consumers that write, and saves checkpoints;
    the others keep step with it.
    """

    resolved: Resolved
    run: RunFolder
    learner: Learner
    stream: Stream
    tokenizer: Tokenizer
    evaluator: Evaluator | None
    progress: Progress
    world: World
    stop: StopSignals
    display: Display
    consumers: Sequence[Consumer]
    saved: int | None
    """The step of the last checkpoint, if there is one."""
    saving: Saving | None = None
    """A checkpoint that is being written."""

    @property
    def train(self) -> TrainConfig:
        """The recipe's training section."""
        return self.resolved.config.train

    @property
    def checkpoint(self) -> Path | None:
        """The last checkpoint."""
        return None if self.saved is None else self.run.checkpoints / checkpoint_name(self.saved)

    @property
    def finished(self) -> bool:
        """Whether nothing of the recipe is left to do."""
        return self.learner.step == self.train.steps and not self.progress.pending

    def go(self) -> None:
        """Train until the recipe's end, ``stop_after`` or a stop signal, and save there."""
        last = min(self.train.steps, self.train.stop_after or self.train.steps)
        self.display.begin(self.learner.step, self.train.steps)
        self._work_off()
        records = train(
            self.learner, self.stream, self.train, self.resolved.config.seed, self.world, self.stop
        )
        with closing(records):
            try:
                while self.learner.step < last and (record := next(records, None)):
                    self._boundary(record)
            except NonFiniteLossError as error:
                self._published()
                self.world.agree(self._explained(error))
            except DataError:
                self.save()  # the weights are those of the last whole step
                raise
        self.save()

    def _explained(self, error: NonFiniteLossError) -> NonFiniteLossError:
        where = self.checkpoint or "none: the run had not saved yet"
        return NonFiniteLossError(
            f"{error}\nno weight was touched by it; the last checkpoint is {where}\n"
            "try a lower train.learning_rate, a longer train.warmup_steps, train.clip: 1.0 or "
            "train.precision: fp32, in a new run (a resume of this one would meet it again)"
        )

    def _boundary(self, record: StepRecord) -> None:
        if self.saving is not None and self.saving.done():
            self._published()
        self.progress.window.add(record)
        final = record.step == self.train.steps
        if final or record.step % self.train.log_every == 0:
            self._emit(self.progress.window.flush(record))
        every = {"validation": self.train.validate_every, "sample": self.train.sample_every}
        self.progress.pending = tuple(
            kind for kind, steps in every.items() if final or record.step % steps == 0
        ) + ("metric",) * (final and bool(self.resolved.config.metric))
        improved = self._work_off()
        if improved or record.step % self.train.checkpoint_every == 0:
            self.save(later=self.train.checkpoint_async)

    def _work_off(self) -> bool:
        """Make the records that are due at this step; True if the validation loss is the best.

        What a stop signal interrupts stays pending, for the resume to make, and so does what
        fails: then the weights are saved first. The other processes wait meanwhile, since the
        number of evaluations is known to nobody beforehand.
        """
        if not self.progress.pending:
            return False
        best = self.progress.best
        try:
            with self.learner.ema.whole(self.world):
                self.progress.pending, self.progress.best = self.world.lead(self._make)
        except Exception:
            self.save()
            raise
        return self.progress.best != best

    def _make(self) -> tuple[tuple[str, ...], tuple[int, float] | None]:
        """In the first process: (what is still pending, the best validation)."""
        makers = {"validation": self._validate, "sample": self._sample, "metric": self._measure}
        assert self.evaluator is not None
        for kind in self.progress.pending:
            try:
                makers[kind](self.evaluator)
            except Stopped:
                break
            self.progress.pending = self.progress.pending[1:]
        return self.progress.pending, self.progress.best

    def _validate(self, evaluator: Evaluator) -> None:
        report = evaluator.validate()
        self._emit({"kind": "validation", "step": self.learner.step, **report})
        best = self.progress.best
        if best is None or report["loss"] < best[1]:
            self.progress.best = (self.learner.step, report["loss"])

    def _sample(self, evaluator: Evaluator) -> None:
        texts = evaluator.sample()
        self.run.write_samples(self.learner.step, texts)
        self._emit({"kind": "sample", "step": self.learner.step, "texts": texts})

    def _measure(self, evaluator: Evaluator) -> None:
        self._emit({"kind": "metric", "step": self.learner.step, **evaluator.measure()})

    def _emit(self, record: Mapping[str, Any]) -> None:
        for consumer in self.consumers:
            consumer.log(record)

    def save(self, later: bool = False) -> None:
        """Publish a checkpoint of the last whole step, unless there is one already.

        Old ones are deleted either way: a kill may have come between the two. ``later``: one in
        shards is written while training goes on, and published at the end of a step.
        """
        self._published()
        if self.saved == self.learner.step:
            self.world.lead(self._prune)
            return
        self.learner.stream_state = united(self.world.share(self.learner.stream_state))
        if isinstance(self.world, Sharded):
            final = self.run.checkpoints / checkpoint_name(self.learner.step)
            tensors = sharded(tensors_of(self.learner))
            write = partial(self._write, {})
            self.saving = Saving.begin(final, self.learner.step, tensors, write, self.world, later)
            if not later:
                self._published()
        else:
            self.world.lead(self._publish)
            self.saved = self.learner.step

    def _published(self) -> None:
        """What is being written is a checkpoint from here on."""
        if self.saving is not None:
            saving, self.saving = self.saving, None
            path = saving.publish()
            self.world.lead(lambda: self._saved(path))
            self.saved = saving.step

    def _publish(self) -> None:
        write = partial(self._write, capture(self.learner))
        self._saved(publish(self.run.checkpoints, self.learner.step, write))

    def _write(self, captured: Captured, folder: Path) -> None:
        text, progress = self.resolved.text(), self.progress.json()
        write_checkpoint(folder, captured, self.learner, text, self.tokenizer, progress)

    def _saved(self, path: Path) -> None:
        self._emit({"kind": "checkpoint", "step": step_of(path), "path": str(path)})
        self._prune()

    def _prune(self) -> None:
        best = () if self.progress.best is None else (self.progress.best[0],)
        prune(self.run.checkpoints, self.train.keep_last, best)

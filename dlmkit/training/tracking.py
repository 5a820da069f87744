"""Consumers of a run's records, and trackers, which can never stop one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from dlmkit import documents
from dlmkit.core.tracker import Tracker
from dlmkit.errors import CheckpointError, describe
from dlmkit.training.folder import KINDS
from dlmkit.training.loop import StepRecord


class Consumer(Protocol):
    """Receives the records of a run, in order."""

    def log(self, record: Mapping[str, Any]) -> None:
        """One record: ``kind``, ``step``, and what that kind holds."""

    def close(self) -> None:
        """Nothing more will come."""


class Guarded:
    """A tracker whose first fault is reported, after which it is left alone."""

    def __init__(self, name: str, tracker: Tracker, say: Callable[[str], None]) -> None:
        self.name, self.tracker, self.say = name, tracker, say
        self.working = True

    def open(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        """See :meth:`Tracker.open`."""
        self._try("open", lambda: self.tracker.open(folder, recipe))

    def log(self, record: Mapping[str, Any]) -> None:
        if record["kind"] in KINDS:
            self._try("log", lambda: self.tracker.log(record))

    def close(self) -> None:
        self._try("close", self.tracker.close)

    def _try(self, what: str, call: Callable[[], None]) -> None:
        if not self.working:
            return
        try:
            call()
        except (Exception, SystemExit) as error:
            self.working = False
            self.say(
                f"tracker {self.name} failed to {what} ({describe(error)}); "
                "the run goes on without it, and metrics.jsonl has everything"
            )


@dataclass
class StepWindow:
    """Steps since the last train record, and the totals of the run; JSON in, JSON out."""

    steps: int = 0
    loss: float = 0.0
    gradient_norm: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    total_tokens: int = 0
    total_seconds: float = 0.0

    def add(self, record: StepRecord) -> None:
        """Count one step in."""
        self.steps += 1
        for key in ("loss", "gradient_norm", "tokens", "seconds", "data_seconds"):
            setattr(self, key, getattr(self, key) + getattr(record, key))
        self.total_tokens += record.tokens
        self.total_seconds += record.seconds

    def flush(self, record: StepRecord) -> dict[str, Any]:
        """The train record that ends with ``record``: means over its steps, totals over the run.

        ``tokens`` and ``seconds`` are totals; ``data_share`` is the share of time that went into
        waiting for data.
        """
        seconds = max(self.seconds, 1e-9)
        summary = {
            "kind": "train",
            "step": record.step,
            "loss": self.loss / self.steps,
            "gradient_norm": self.gradient_norm / self.steps,
            "learning_rate": record.learning_rate,
            "tokens": self.total_tokens,
            "seconds": round(self.total_seconds, 3),
            "tokens_per_second": round(self.tokens / seconds, 1),
            "step_seconds": round(self.seconds / self.steps, 6),
            "data_share": round(self.data_seconds / seconds, 6),
        }
        for entry in fields(self):
            if not entry.name.startswith("total"):
                setattr(self, entry.name, entry.default)
        return summary


@dataclass
class Progress:
    """What a run remembers beside the learner.

    ``best`` is the step with the lowest validation loss and that loss. ``pending`` names the
    kinds of record that are still to be made at the current step. ``processes`` trained it.
    """

    window: StepWindow = field(default_factory=StepWindow)
    best: tuple[int, float] | None = None
    pending: tuple[str, ...] = ()
    processes: int = 1

    def json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @staticmethod
    def of(content: Mapping[str, Any]) -> Progress:
        """From JSON. Raises CheckpointError if it is of another shape."""
        try:
            return documents.shaped(content, Progress)
        except ValueError as error:
            raise CheckpointError(f"the progress of the checkpoint: {error}") from error

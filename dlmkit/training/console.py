"""Showing a run: live progress on a terminal, plain lines elsewhere. Both go to stderr."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from dlmkit.shown import console


class Display:
    """A consumer of records that talks to a person. As it is, it keeps silent, as the processes
    of a run do that are not the first."""

    def say(self, text: str) -> None:
        """One message."""

    def begin(self, step: int, steps: int) -> None:
        """The first step is about to be taken after ``step`` of ``steps``."""

    def log(self, record: Mapping[str, Any]) -> None:
        """A record of any kind: train, validation, sample, metric or checkpoint."""

    def close(self) -> None:
        """Nothing more will come."""


def describe(record: Mapping[str, Any], steps: int) -> str:
    """One record as text, of one line but for samples."""
    head = f"step {record['step']}/{steps}"
    if record["kind"] == "train":
        left = (steps - record["step"]) * record["step_seconds"]
        return (
            f"{head}  loss {record['loss']:.4f}  grad {record['gradient_norm']:.2f}  "
            f"rate {record['learning_rate']:.2e}  {_count(record['tokens_per_second'])} tokens/s  "
            f"left {_duration(left)}"
        )
    if record["kind"] == "validation":
        levels = "  ".join(f"{r['sigma']:.3g}: {r['model']:.3f}" for r in record["levels"])
        return (
            f"{head}  validation {record['loss']:.4f} nats/token, context gain "
            f"{record['gain']:.4f}  by noise level  {levels}"
        )
    if record["kind"] == "sample":
        return "\n".join(f"{head}  sample {i}: {text}" for i, text in enumerate(record["texts"]))
    if record["kind"] == "metric":
        numbers = (
            (f"{name} {key}", value)
            for name, of in record["metrics"].items()
            for key, value in of.items()
        )
        lines = "".join(f"\n  {key} {value:.4f}" for key, value in numbers)
        return f"{head}  metrics of {record['texts']} texts{lines}"
    return f"{head}  saved {record['path']}"


def _count(number: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.0f}"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}"


class Lines(Display):
    """One line a record."""

    def __init__(self, console: Console) -> None:
        self.console, self.steps = console, 0

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def begin(self, step: int, steps: int) -> None:
        self.steps = steps

    def log(self, record: Mapping[str, Any]) -> None:
        self.say(describe(record, self.steps))


class Screen(Lines):
    """A progress bar over the last validation and the last samples."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            speed_estimate_period=120,
            console=console,
        )
        self.latest: dict[str, str] = {}
        self.live = Live(console=console, refresh_per_second=4, get_renderable=self._picture)

    def _picture(self) -> Group:
        texts = [
            Text(self.latest[kind])
            for kind in ("validation", "sample", "metric")
            if kind in self.latest
        ]
        return Group(self.progress, *texts)

    def begin(self, step: int, steps: int) -> None:
        super().begin(step, steps)
        self.task = self.progress.add_task("", total=steps, completed=step)
        self.live.start()

    def log(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "train":
            description = (
                f"loss {record['loss']:.3f}  rate {record['learning_rate']:.1e}  "
                f"{_count(record['tokens_per_second'])} tokens/s"
            )
            self.progress.update(self.task, completed=record["step"], description=description)
        else:
            self.latest[record["kind"]] = describe(record, self.steps)

    def close(self) -> None:
        self.live.stop()


def display(first: bool) -> Display:
    """What suits stderr; only the first process of a run shows anything."""
    if not first:
        return Display()
    terminal = console(talk=True)
    return Screen(terminal) if terminal.is_terminal else Lines(terminal)

"""Consumers of what the sampling loop yields. Each passes the steps on unchanged, so they chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from dlmkit import shown
from dlmkit.sampling.snapshot import Snapshot


def progress(
    steps: Iterator[Snapshot], total: int, console: Console | None = None
) -> Iterator[Snapshot]:
    """Show on stderr, while it is a terminal, how many of ``total`` texts are done."""
    columns = (
        TextColumn("sampling"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[evaluations]} evaluations"),
        TimeElapsedColumn(),
    )
    with shown.bar(*columns, on=console) as bar:
        task = bar.add_task("", total=total, evaluations=0)
        for step in steps:
            bar.update(task, advance=len(step.samples), evaluations=step.evaluations)
            yield step


def watched(steps: Iterator[Snapshot], call: Callable[[Snapshot], object]) -> Iterator[Snapshot]:
    """``call`` with every step as it passes."""
    for step in steps:
        call(step)
        yield step

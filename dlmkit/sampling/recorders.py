"""Consumers of what the sampling loop yields. Each passes the steps on unchanged, so they chain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from dlmkit import shown
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.sampling.step import Step


def progress(steps: Iterator[Step], total: int, console: Console | None = None) -> Iterator[Step]:
    """Show on stderr, while it is a terminal, how many of ``total`` texts are done."""
    columns = (
        TextColumn("sampling"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[evaluations]} evaluations"),
        TimeElapsedColumn(),
    )
    console = console or shown.console(talk=True)
    with Progress(*columns, console=console, transient=True, disable=not _seen(console)) as bar:
        task = bar.add_task("", total=total, evaluations=0)
        for step in steps:
            bar.update(task, advance=len(step.samples), evaluations=step.evaluations)
            yield step


def _seen(console: Console) -> bool:
    return console.is_terminal or console.is_jupyter


def watched(steps: Iterator[Step], call: Callable[[Step], object]) -> Iterator[Step]:
    """``call`` with every step as it passes."""
    for step in steps:
        call(step)
        yield step


@dataclass(frozen=True)
class Trajectory:
    """One text's way: T steps, its x after each, the tokens it would have ended with there."""

    row: int
    x: Float[Tensor, "T L ..."] | Int[Tensor, "T L ..."]
    ids: Int[Tensor, "T L"]
    statistics: dict[str, Float[Tensor, "T"]]


class TrajectoryRecorder:
    """Keeps the trajectories of some rows (default: all) on the CPU."""

    def __init__(self, space: EmbeddingSpace, rows: Collection[int] | None = None) -> None:
        self.space = space
        self.rows = rows
        self._kept: dict[int, list[tuple[Tensor, Tensor, dict[str, Tensor]]]] = {}

    def watch(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The same steps, recorded as they pass."""
        for step in steps:
            self._keep(step)
            yield step

    def _keep(self, step: Step) -> None:
        for slot in step.live.nonzero()[:, 0].tolist():
            row = int(step.row[slot])
            if self.rows is None or row in self.rows:
                x = step.x[slot : slot + 1]
                with torch.no_grad():
                    ids = self.space.decode(x, step.prediction.query[slot : slot + 1])
                values = {name: value[slot].cpu() for name, value in step.statistics.items()}
                self._kept.setdefault(row, []).append((x[0].cpu(), ids[0].cpu(), values))

    def trajectories(self) -> list[Trajectory]:
        """What has been recorded so far, by row."""
        return [
            Trajectory(
                row=row,
                x=torch.stack([x for x, _, _ in kept]),
                ids=torch.stack([ids for _, ids, _ in kept]),
                statistics={n: torch.stack([v[n] for _, _, v in kept]) for n in kept[0][2]},
            )
            for row, kept in sorted(self._kept.items())
        ]

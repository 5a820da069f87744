"""One case sampled for real: its texts, what they took, and the row evaluations executed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from dlmkit.exits.replay import Replay
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request
from dlmkit.sampling.runner import stream
from dlmkit.sampling.slots import Width, exact
from dlmkit.sampling.snapshot import Sample, Snapshot
from dlmkit.types import Ids, Index


@dataclass(frozen=True)
class Outcome:
    """B texts in order of their index, and the network's row evaluations, frozen rows included.

    ``executed`` is what the run cost; the sum of ``evaluations`` is what its texts needed, and
    ``drawn`` the tokens of them that were not given, padding and what is behind an end left out.
    """

    samples: tuple[Sample, ...]
    executed: int
    drawn: int

    @property
    def evaluations(self) -> Index:
        """Of each text."""
        return torch.tensor([sample.evaluations for sample in self.samples])

    @property
    def steps(self) -> Index:
        """Of each text."""
        return torch.tensor([sample.steps for sample in self.samples])

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return sum(len(sample.ids) for sample in self.samples)

    def ids(self, length: int) -> Ids:
        """Padded with 0, as a trace has them."""
        rows = torch.zeros(len(self.samples), length, dtype=torch.int64)
        for row, sample in zip(rows, self.samples, strict=True):
            row[: len(sample.ids)] = torch.tensor(sample.ids)
        return rows


@dataclass(frozen=True)
class Work:
    """Texts asked of one set of parts: everything a run needs."""

    parts: SamplingParts
    requests: Sequence[Request]
    seed: int
    steps: int
    batch_size: int
    length: int
    width: Width = exact

    def stream(self) -> Iterator[Snapshot]:
        """The sampling loop over them."""
        return stream(
            self.parts,
            self.requests,
            seed=self.seed,
            steps=self.steps,
            batch_size=self.batch_size,
            length=self.length,
            width=self.width,
        )

    def ending(self, steps: Index) -> Work:
        """The same texts, each ended after so many steps and by no rule."""
        requests = [
            replace(request, steps=step)
            for request, step in zip(self.requests, steps.tolist(), strict=True)
        ]
        return replace(self, parts=replace(self.parts, exit=None), requests=requests)

    def run(self) -> Outcome:
        """Sample them."""
        samples: list[Sample] = []
        executed = 0
        for step in self.stream():
            samples += step.samples
            executed = step.evaluations
        asked = {request.row: request.tokens for request in self.requests}
        drawn = sum(asked[s.row][: len(s.ids)].count(None) for s in samples)
        return Outcome(tuple(sorted(samples, key=lambda sample: sample.row)), executed, drawn)


def against(outcome: Outcome, full: Ids, generated: Tensor, full_evaluations: int) -> Replay:
    """``outcome`` beside the full run of the same texts, in the terms of a replay."""
    ids = outcome.ids(full.shape[1])
    share = ((ids != full) & generated).sum(dim=1).double() / generated.sum(dim=1).clamp(min=1)
    return Replay(outcome.steps, outcome.evaluations, ids, share, full_evaluations)


def row_steps(steps: Sequence[int], batch_size: int, width: Width) -> int:
    """Row steps executed by the sampling loop for texts that take ``steps``, by count alone."""
    queue = iter(steps)
    left = list(islice(queue, batch_size))
    left += [0] * (width(len(left), batch_size) - len(left))
    total = 0
    while any(left):
        total += len(left)
        left = [max(number - 1, 0) for number in left]
        free = left.count(0)
        fresh = list(islice(queue, free))
        live = [number for number in left if number] + fresh
        slots = len(left) if len(fresh) == free else width(len(live), len(left))
        left = live + [0] * (slots - len(live))
    return total


def barrier_row_steps(steps: Sequence[int], batch_size: int) -> int:
    """The same for a loop that starts a batch only when all texts of the last one are done."""
    batches = [steps[i : i + batch_size] for i in range(0, len(steps), batch_size)]
    return sum(len(batch) * max(batch) for batch in batches)

"""The sampling loop: :func:`stream` is the only one, :func:`generate` drains it.

Every row has its own place on the grid, so a row that ends gives its slot to the next text at
that text's own first step, at constant batch shape. What a row becomes depends on the seed and
its index alone; slots, refill and compaction are speed (and floating-point rounding).

`opening` draws the rows of new texts, `turn` steps them all, `ending` says which end and reads
their texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch

from dlmkit.sampling.ending import Ending, Evaluations, last_step
from dlmkit.sampling.graphs import RecordedTurn
from dlmkit.sampling.levels import Ladder, levels
from dlmkit.sampling.opening import Opening
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request
from dlmkit.sampling.settle import settle
from dlmkit.sampling.slots import RowSlots, Width, compact, end, exact, refill
from dlmkit.sampling.snapshot import Sample, Snapshot
from dlmkit.sampling.turn import SamplingTurn


def stream(
    parts: SamplingParts,
    requests: Iterable[Request],
    *,
    seed: int,
    steps: int,
    batch_size: int,
    length: int,
    width: Width = exact,
) -> Iterator[Snapshot]:
    """Sample ``requests`` on a grid of ``steps`` points in at most ``batch_size`` slots.

    ``requests`` is read as slots come free and may be endless; rows are padded to ``length``.
    ``width`` says how slots shrink once it is empty. Raises UsageError for a request that does
    not fit and RecipeError for a grid that is not strictly decreasing.
    """
    queue = iter(requests)
    run = _Run.begin(parts, seed, steps, length)
    first = list(islice(queue, batch_size))
    if not first:
        return
    slots = run.opening.slots(first, width(len(first), batch_size))
    while slots.live:
        slots, snapshot = run.turn(slots)
        yield snapshot
        slots = run.refill(slots, queue, width)


def generate(
    parts: SamplingParts,
    requests: Iterable[Request],
    *,
    seed: int,
    steps: int,
    batch_size: int,
    length: int,
    width: Width = exact,
) -> list[Sample]:
    """The samples of :func:`stream`, in order of their index."""
    turns = stream(
        parts, requests, seed=seed, steps=steps, batch_size=batch_size, length=length, width=width
    )
    return sorted((sample for turn in turns for sample in turn.samples), key=lambda s: s.row)


@dataclass(frozen=True)
class _Run:
    """What stays the same from turn to turn. Each method maps slots to slots."""

    parts: SamplingParts
    steps: int
    opening: Opening
    advance: SamplingTurn | RecordedTurn
    ending: Ending

    @staticmethod
    def begin(parts: SamplingParts, seed: int, steps: int, length: int) -> _Run:
        parts = parts.prepared()
        ladder = Ladder.of(levels(parts, steps), parts.device, parts.dtype)
        last, asked = last_step(parts.exit, ladder)
        parts = replace(parts, exit=asked)
        evaluations = Evaluations.of(parts, steps)
        turn = SamplingTurn(parts, ladder, evaluations.denoise)
        graphs = parts.inference.cuda_graphs
        counters = evaluations.network, evaluations.denoise
        advance = RecordedTurn(turn, counters) if graphs else turn
        opening = Opening(parts, seed, length, ladder, evaluations.denoise, last)
        return _Run(parts, steps, opening, advance, Ending(parts, seed, steps, evaluations))

    @torch.no_grad()
    def turn(self, slots: RowSlots) -> tuple[RowSlots, Snapshot]:
        """One sampler step of the live rows; a text ends with the grid or where a rule says so.

        The device is waited for where a rule may end a text, and where texts end: once each.
        """
        all_last = all(seat.done + 1 >= self.steps for seat in slots.seats)
        state, seen = self.advance(slots.state, all_last, all_live=not slots.free)
        verdicts = seen.read()
        if seen.settles is not None and any(verdict.settles for verdict in verdicts):
            state = settle(self.parts, state, seen.settles, seen.prediction.query)
        slots = RowSlots(tuple(seat.stepped() for seat in slots.seats), state)
        ended = self.ending.ended(slots, verdicts)
        snapshot = Snapshot(
            row=torch.tensor([seat.request.row for seat in slots.seats]),
            live=torch.tensor([seat.live for seat in slots.seats]),
            done=torch.tensor([seat.done for seat in slots.seats]),
            x=seen.x,
            origin=seen.origin,
            prediction=seen.prediction,
            statistics=seen.statistics,
            samples=self.ending.samples(slots, ended, seen, verdicts),
            evaluations=self.ending.evaluations.network.rows,
        )
        return end(slots, ended, self.steps), snapshot

    def refill(self, slots: RowSlots, queue: Iterator[Request], width: Width) -> RowSlots:
        """Give free slots to the next requests; shrink when there are none left."""
        free = slots.free
        requests = list(islice(queue, len(free)))
        if requests:
            fresh = self.opening.slots(requests, len(requests))
            slots = refill(slots, free[: len(requests)], fresh)
        if len(requests) < len(free):
            slots = compact(slots, width(slots.live, len(slots.seats)))
        return slots

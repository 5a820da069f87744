"""Slots: the rows that are being sampled side by side, each at its own place on the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.denoise import Prediction
from dlmkit.core.network import Conditioning
from dlmkit.noise import Noise
from dlmkit.sampling.requests import Request, RowTemplate
from dlmkit.types import Index, Mask, Rows

Width = Callable[[int, int], int]
"""With an empty queue: (live rows, slots now, or allowed at the start) -> slots from now on."""


def exact(live: int, slots: int) -> int:
    """As many slots as live rows: nothing is computed in vain."""
    return live


def halves(live: int, slots: int) -> int:
    """Half the slots as soon as half suffice: few shapes, for compiled and captured graphs."""
    while 0 < live <= slots // 2:
        slots //= 2
    return slots


def constant(live: int, slots: int) -> int:
    """All slots to the end: one shape, so that every row is bitwise the same whatever follows."""
    return slots


@dataclass(frozen=True)
class State:
    """What the device knows of the slots, row-first.

    ``position`` is the grid point a row stands at: the number of steps it has taken, and that of
    the whole grid once it has ended, however early. ``asked`` is what each row was asked for and
    ``generated`` its positions that are neither given nor padding; ``noise`` holds the streams of
    all of its steps. ``memory`` is the exit rule's, ``settling`` the (B, L, ...) memory of the rule
    that settles positions; settled ones join those that ``asked`` and ``conditioning`` give.
    ``sound`` says that no prediction of the row held a NaN or plus infinity. ``before`` is the last
    prediction, meaningless at rows that have taken no step and None before any has.
    """

    position: Index
    asked: RowTemplate
    generated: Mask
    conditioning: Conditioning
    noise: Noise
    x: Tensor
    sound: Rows
    previous: Any
    sampler: Any
    memory: Any
    settling: Any = ()
    before: Prediction | None = None


class LastStep(NamedTuple):
    """The step that a row ends at unless something ends it before, and the reason; none: the grid
    ends there."""

    step: int
    reason: str | None = None

    def of(self, request: Request) -> LastStep:
        """That of ``request``, which may ask for fewer steps."""
        if request.steps is None or request.steps >= self.step:
            return self
        return LastStep(request.steps, f"decided: step {request.steps}")


@dataclass(frozen=True)
class Seat:
    """What the host knows of a slot without asking the device: its text, the step that it ends at
    at the latest, and steps done."""

    request: Request
    last: LastStep
    done: int = 0
    live: bool = True

    def stepped(self) -> Seat:
        """After a turn."""
        return replace(self, done=self.done + self.live)


@dataclass(frozen=True)
class RowSlots:
    """The state of the loop: the same slots as the host and as the device know them.

    A row that is not ``live`` is frozen.
    """

    seats: tuple[Seat, ...]
    state: State

    @property
    def live(self) -> int:
        """How many are."""
        return sum(seat.live for seat in self.seats)

    @property
    def free(self) -> list[int]:
        """Slots whose text has ended."""
        return [i for i, seat in enumerate(self.seats) if not seat.live]


def freeze(mask: Tensor, state: State, stepped: State) -> State:
    """``stepped`` where ``mask`` holds, unchanged elsewhere."""
    return rows.where(mask, stepped, replace(state, before=stepped.before))


def end(slots: RowSlots, index: Sequence[int], steps: int) -> RowSlots:
    """``slots`` with the rows ``index`` ended, on a grid of ``steps`` points."""
    if not index:
        return slots
    seats, state = list(slots.seats), slots.state
    for i in index:
        seats[i] = replace(seats[i], live=False)
    if any(seats[i].done < steps for i in index):
        state = replace(state, position=state.position.index_fill(0, places(index, slots), steps))
    return RowSlots(tuple(seats), state)


def refill(slots: RowSlots, index: Sequence[int], fresh: RowSlots) -> RowSlots:
    """``slots`` with the slots ``index`` given to ``fresh``."""
    seats, where = list(slots.seats), places(index, slots)
    for i, seat in zip(index, fresh.seats, strict=True):
        seats[i] = seat
    state = fresh.state
    if slots.state.before is not None:
        state = replace(state, before=rows.take(slots.state.before, where))
    return RowSlots(tuple(seats), rows.put(slots.state, where, state))


def compact(slots: RowSlots, width: int) -> RowSlots:
    """The live rows, and frozen ones up to ``width`` slots, in their order."""
    if width >= len(slots.seats):
        return slots
    free = slots.free
    out = set(free[len(free) - (len(slots.seats) - width) :])
    kept = [i for i in range(len(slots.seats)) if i not in out]
    seats = tuple(slots.seats[i] for i in kept)
    return RowSlots(seats, rows.take(slots.state, places(kept, slots)))


def places(index: Sequence[int], slots: RowSlots) -> Index:
    """The slots ``index`` as a tensor where the state is."""
    return torch.tensor(index, dtype=torch.int64).to(slots.state.x.device, non_blocking=True)

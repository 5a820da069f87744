"""Slots: the rows that are being sampled side by side, each at its own place on the grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from dlmkit import rows
from dlmkit.core.denoise import Prediction
from dlmkit.core.network import Conditioning
from dlmkit.sampling.requests import Template
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
class Slots:
    """The state of the loop, row-first.

    ``template`` is what each row was asked for and ``position`` the grid point it stands at,
    which is the number of steps it has taken. A row that is not ``live`` is frozen. ``memory`` is
    the exit rule's, ``settling`` the (B, L, ...) memory of the rule that settles positions; settled
    ones join those that ``template`` and ``conditioning`` give. ``before`` is the last prediction,
    meaningless at rows that have taken no step and None before any has.
    """

    template: Template
    live: Rows
    position: Index
    conditioning: Conditioning
    x: Tensor
    previous: Any
    sampler: Any
    memory: Any
    settling: Any = ()
    before: Prediction | None = None

    @property
    def generated(self) -> Mask:
        """Positions that are neither given nor padding."""
        return self.template.attend & ~self.template.given


def freeze(slots: Slots, stepped: Slots) -> Slots:
    """``stepped`` where ``slots`` is live, unchanged elsewhere."""
    if bool(slots.live.all()):
        return stepped
    kept = replace(slots, before=stepped.before)
    return rows.where(slots.live, stepped, kept)


def refill(slots: Slots, index: Tensor, fresh: Slots) -> Slots:
    """``slots`` with the rows ``index`` given to ``fresh``."""
    if slots.before is not None:
        fresh = replace(fresh, before=rows.take(slots.before, index))
    return rows.put(slots, index, fresh)


def compact(slots: Slots, width: int) -> Slots:
    """The live rows, and frozen ones up to ``width`` slots, in their order."""
    if width >= len(slots.live):
        return slots
    order = (~slots.live).long().argsort(stable=True)[:width]
    return rows.take(slots, order.sort().values)

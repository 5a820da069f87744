"""What the sampling loop yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dlmkit.core.denoise import Prediction
from dlmkit.types import Index, PerRow, Rows


@dataclass(frozen=True)
class Sample:
    """One finished text: its index, its ids (padding, and what follows the token that ends it, left
    out), grid steps and evaluations done, the exit rule that halted it (None at the end of the
    grid), and where the text begins in the ids."""

    row: int
    ids: tuple[int, ...]
    steps: int
    evaluations: int
    halted: str | None
    start: int = 0


@dataclass(frozen=True)
class Snapshot:
    """The rows after one turn of the loop, for whoever watches. Tensors are row-first, by slot.

    ``row`` is the text in each slot, ``live`` whether it stepped, ``done`` its grid steps so far:
    these three are on the CPU, since the host knows them; the rest is where the model is. ``x`` is
    where the row went and ``prediction`` what was believed at ``origin``, where it came from.
    ``samples`` ended in this turn. ``evaluations`` counts the network's row evaluations since the
    start, frozen rows included; it is what the run has cost.
    """

    row: Index
    live: Rows
    done: Index
    x: Tensor
    origin: Tensor
    prediction: Prediction
    statistics: Mapping[str, PerRow]
    samples: tuple[Sample, ...]
    evaluations: int

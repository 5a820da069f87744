"""The levels that a run visits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.exits import BUILT_IN
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError, UsageError
from dlmkit.sampling.parts import SamplingParts
from dlmkit.types import Index, PerRow, Points


class Rung(NamedTuple):
    """What a row's place on the grid says: its level, the next, and the built-in statistics."""

    here: Level
    next: Level
    statistics: Mapping[str, PerRow]


class _Known(Level):
    """A level of which the host knows whether it is the clean one."""

    clean: bool | None = None  # a copy made row by row does not have it

    def all_clean(self) -> bool:
        return super().all_clean() if self.clean is None else self.clean


@dataclass(frozen=True)
class Ladder:
    """The grid of one run as a table, a column a point, so that a step looks up all at once.

    One more column, for rows that have ended, repeats the last.
    """

    table: Float[Tensor, "7 N"]

    @staticmethod
    def of(levels: Level, device: torch.device, dtype: torch.dtype) -> Ladder:
        """The ladder of ``levels`` (float64[N+1], the clean end last) in ``dtype``."""
        alpha, sigma = (values.to(device).to(dtype) for values in levels)
        steps = len(alpha) - 1
        done = torch.arange(1, steps + 1, device=device).to(dtype)
        ratio = Level(alpha, sigma).ratio[:-1]
        rows = (alpha[:-1], sigma[:-1], alpha[1:], sigma[1:], done, done / steps, ratio)
        table = torch.stack(rows)
        return Ladder(torch.cat((table, table[:, -1:]), dim=1))

    @property
    def steps(self) -> int:
        """N, the points of the grid."""
        return self.table.shape[1] - 1

    def at(self, position: Index, last: bool) -> Rung:
        """The places ``position``. ``last`` says whether every row's next level is clean."""
        alpha, sigma, alpha_next, sigma_next, *built_in = self.table.index_select(1, position)
        following = _Known(alpha_next, sigma_next)
        following.clean = last
        return Rung(Level(alpha, sigma), following, dict(zip(BUILT_IN, built_in, strict=True)))


def levels(parts: SamplingParts, steps: int) -> Level:
    """The levels of ``steps`` grid points and of the clean end, each float64[N+1].

    Raises UsageError for fewer than one step and RecipeError for a grid that is not strictly
    decreasing.
    """
    if steps < 1:
        raise UsageError(f"a grid needs at least 1 step, not {steps}")
    points = parts.grid.points(parts.schedule, steps).double()
    if points.shape != (steps,) or not _decreasing(points):
        raise RecipeError(
            f"grid {type(parts.grid).__name__} gave {tuple(points.shape)} times that are not "
            f"{steps} finite, strictly decreasing ones; take fewer steps or another grid"
        )
    alpha, sigma = parts.schedule.level(points)
    return Level(torch.cat((alpha, alpha.new_ones(1))), torch.cat((sigma, sigma.new_zeros(1))))


def _decreasing(points: Points) -> bool:
    return bool(torch.isfinite(points).all() and (points.diff() < 0).all())

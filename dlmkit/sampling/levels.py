"""The levels that a run visits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.exits import BUILT_IN
from dlmkit.core.sampler import Step, per_row
from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError, UsageError
from dlmkit.noise import Noise
from dlmkit.sampling.parts import SamplingParts
from dlmkit.types import Index, Mask, PerRow, Points

_BUILT_IN = [6, 7, 2]
"""Rows of a ladder's table that hold the built-in statistics."""


@dataclass(frozen=True)
class Ladder:
    """The grid of one run as a table, a column a point, so that a step looks up all at once.

    One more column, for rows that have ended, repeats the last.
    """

    table: Float[Tensor, "8 N"]

    @staticmethod
    def of(levels: Level, device: torch.device, dtype: torch.dtype) -> Ladder:
        """The ladder of ``levels`` (float64[N+1], the clean end last) in ``dtype``."""
        alpha, sigma = (values.to(device).to(dtype) for values in levels)
        steps = len(alpha) - 1
        done = torch.arange(1, steps + 1, device=device).to(dtype)
        ratio = Level(alpha, sigma).ratio
        here, after = (
            [v[cut] for v in (alpha, sigma, ratio)] for cut in (slice(-1), slice(1, None))
        )
        table = torch.stack((*here, *after, done, done / steps))
        return Ladder(torch.cat((table, table[:, -1:]), dim=1))

    @property
    def steps(self) -> int:
        """N, the points of the grid."""
        return self.table.shape[1] - 1

    def level(self, position: Index) -> Level:
        """The level of the places ``position``."""
        return Level(*self.table[:2].index_select(1, position))

    def statistics(self) -> Iterator[dict[str, PerRow]]:
        """The built-in statistics of one row at each of its steps, on the host."""
        for values in self.table[_BUILT_IN, :-1].cpu().T:
            yield dict(zip(BUILT_IN, values[:, None], strict=True))

    def step(
        self,
        position: Index,
        x: Tensor,
        generated: Mask,
        noise: Noise,
        previous: Any,
        all_last: bool,
    ) -> tuple[Step, dict[str, PerRow]]:
        """(the step of ``x`` from the places ``position``, the built-in statistics there)."""
        at = self.table.index_select(1, position)
        alpha, sigma, ratio, alpha_next, sigma_next, ratio_next, *_ = at
        step = Step(
            here=Level(alpha, sigma),
            next=Level(alpha_next, sigma_next),
            ratio=per_row(ratio, x),
            next_ratio=per_row(ratio_next, x),
            last=position >= self.steps - 1,
            noise=noise.at(position),
            previous=previous,
            index=position,
            steps=self.steps,
            generated=generated,
            all_last=all_last,
        )
        return step, {name: at[row] for name, row in zip(BUILT_IN, _BUILT_IN, strict=True)}


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

"""The levels that a run visits."""

from __future__ import annotations

import torch

from dlmkit.core.schedule import Level
from dlmkit.errors import RecipeError, UsageError
from dlmkit.sampling.parts import SamplingParts
from dlmkit.types import Points


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

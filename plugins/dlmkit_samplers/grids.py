"""Grids from ``t_max`` down to ``t_min``, computed in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlmkit import devices
from dlmkit.core.context import BuildContext
from dlmkit.core.grid import Grid
from dlmkit.core.schedule import NoiseSchedule
from dlmkit.types import Points
from dlmkit_samplers import configs


def falling(schedule: NoiseSchedule, n: int) -> Points:
    """``n`` numbers from 1 down to 0 where the schedule's tables are; [1] for n = 1."""
    return torch.linspace(1.0, 0.0, n, dtype=torch.float64, device=devices.of(schedule))


def pinned(points: Points, schedule: NoiseSchedule) -> Points:
    """``points`` with their ends exactly at t_max and t_min, which rounding may have moved."""
    points = points.clone()
    if len(points) > 1:
        points[-1] = schedule.t_min
    points[0] = schedule.t_max
    return points


def by_ratio(
    schedule: NoiseSchedule, n: int, forth: Callable[[Tensor], Tensor], back: Callable[..., Tensor]
) -> Points:
    """Points between which ``forth`` of the noise-to-signal ratio falls by equal amounts."""
    u = falling(schedule, n)
    ends = schedule.level(u.new_tensor([schedule.t_min, schedule.t_max]))
    low, high = forth(ends.ratio)
    ratios = back(low + u * (high - low))
    return pinned(schedule.inverse(ratios), schedule)


class WarpedGrid(Grid):
    """Equal shares of the schedule's training draws between neighbours (CDCD's time warping)."""

    def points(self, schedule: NoiseSchedule, n: int) -> Points:
        return pinned(schedule.quantile(falling(schedule, n)), schedule)


class Linear(Grid):
    """Equal steps in t."""

    def points(self, schedule: NoiseSchedule, n: int) -> Points:
        u = falling(schedule, n)
        return pinned(schedule.t_min + u * (schedule.t_max - schedule.t_min), schedule)


class LogUniform(Grid):
    """Equal ratios between neighbours' noise-to-signal ratios."""

    def points(self, schedule: NoiseSchedule, n: int) -> Points:
        return by_ratio(schedule, n, torch.log, torch.exp)


class Karras(Grid):
    """(s_max^(1/rho) + u (s_min^(1/rho) - s_max^(1/rho)))^rho (EDM, 2206.00364, equation 5)."""

    def __init__(self, config: configs.Karras, context: BuildContext) -> None:
        self.rho = config.rho

    def points(self, schedule: NoiseSchedule, n: int) -> Points:
        return by_ratio(schedule, n, lambda s: s ** (1 / self.rho), lambda v: v**self.rho)


class Arctan(Grid):
    """s = tan((1 - u) atan s_min + u atan s_max), u from 1 to 0 (2404.14507, theorem 3.1).

    The optimum for Gaussian data of standard deviation 1, which embeddings of norm sqrt(d) have.
    """

    def points(self, schedule: NoiseSchedule, n: int) -> Points:
        return by_ratio(schedule, n, torch.atan, torch.tan)

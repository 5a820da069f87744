"""Grids: the noise levels that a sampler visits."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dlmkit.core.context import Buildable
from dlmkit.core.schedule import NoiseSchedule
from dlmkit.types import Points


class Grid(Buildable, ABC):
    """Chooses times between a schedule's ends.

    The runner always evaluates the last point it steps from and ends on the clean level, so a
    grid of n points costs exactly n evaluations of a one-evaluation sampler, the final decode
    included.
    """

    @abstractmethod
    def points(self, schedule: NoiseSchedule, n: int) -> Points:
        """``n`` times (float64, strictly decreasing) from ``t_max`` to ``t_min``."""

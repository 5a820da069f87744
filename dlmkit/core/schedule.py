"""Noise schedules: the corruption level at a time, and the density that times are drawn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from dlmkit.types import PerRow, Rows

Times = Float[Tensor, "*shape"]


class Level(NamedTuple):
    """A corruption level: x = alpha * x0 + sigma * noise. Each is [B], or [B, L] by position."""

    alpha: Tensor
    sigma: Tensor

    def like(self, x: Tensor) -> Level:
        """Both values with trailing axes added, so that they broadcast against ``x``."""
        shape = (*self.alpha.shape, *(1,) * (x.ndim - self.alpha.ndim))
        return Level(self.alpha.view(shape).to(x.dtype), self.sigma.view(shape).to(x.dtype))

    def all_clean(self) -> bool:
        """Whether every row is at the clean level. Reads the device, which waits for it."""
        return bool((self.sigma == 0).all())


class NoiseSchedule(nn.Module, ABC):
    """Maps a time to a level, and uniform numbers to times.

    ``t_min`` and ``t_max`` bound the times; corruption grows with t. The density of the times
    is uniform unless a schedule says otherwise by ``quantile``, ``cdf`` and ``pdf`` together.
    """

    t_min: float
    t_max: float

    @abstractmethod
    def level(self, t: Times) -> Level:
        """The level at time ``t``, elementwise and strictly monotone in sigma / alpha."""

    @abstractmethod
    def inverse(self, level: Level) -> Times:
        """The time of ``level``: ``inverse(level(t)) == t``.

        Reads sigma / alpha alone, so any level of the same ratio gives the same time.
        """

    def quantile(self, u: Times) -> Times:
        """The time below which a share ``u`` in [0, 1] of the training draws lies."""
        return self.t_min + u * (self.t_max - self.t_min)

    def cdf(self, t: Times) -> Times:
        """The share of training draws below ``t``: the inverse of :meth:`quantile`."""
        return (t - self.t_min) / (self.t_max - self.t_min)

    def pdf(self, t: Times) -> Times:
        """The density of training draws at ``t``, per unit of t."""
        return t * 0 + 1.0 / (self.t_max - self.t_min)


class LearnedSchedule(NoiseSchedule):
    """A schedule whose density follows the measured loss.

    Its tables are buffers, and so is the state of whatever updates them: both are in the
    ``state_dict``, and a distributed wrapper does not look for their gradients.
    """

    @abstractmethod
    def observe(self, t: PerRow, loss: PerRow, pdf: PerRow, rows: Rows) -> None:
        """Update the tables once, from all rows of one optimiser step; not called where no row
        may be used, so that a momentum moves nothing.

        ``loss`` is the mean over each row's noised positions at time ``t``, ``pdf`` the density
        that the row's t was drawn from, and ``rows`` marks those that may be used (rows
        without given positions).
        """

"""Noise schedules: the corruption level at a time, and the density that times are drawn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlmkit.types import PerRow, Rows

Times = Float[Tensor, "*shape"]

_HALVINGS = 60
"""Of the interval that an inverse is looked for in: more than double precision has."""


class Level(NamedTuple):
    """A corruption level: x = alpha * x0 + sigma * noise. Both are [B], a value for each row."""

    alpha: Tensor
    sigma: Tensor

    @property
    def ratio(self) -> Tensor:
        """sigma / alpha, the noise-to-signal ratio: 0 at the clean level."""
        return self.sigma / self.alpha

    @staticmethod
    def of_ratio(ratio: Tensor) -> Level:
        """The variance-exploding level of this ratio, alpha being 1."""
        return Level(torch.ones_like(ratio), ratio)

    @staticmethod
    def preserving(gamma: Tensor) -> Level:
        """The variance-preserving level at gamma = log(sigma^2 / alpha^2)."""
        return Level(torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt())

    def like(self, x: Tensor) -> Level:
        """Both values with trailing axes added, so that they broadcast against ``x``."""
        shape = (-1, *(1,) * (x.ndim - 1))
        return Level(self.alpha.view(shape).to(x.dtype), self.sigma.view(shape).to(x.dtype))


class NoiseSchedule(nn.Module, ABC):
    """Maps a time to a level, and uniform numbers to times.

    ``t_min`` and ``t_max`` bound the times; corruption grows with t. The density of the times
    is uniform unless a schedule says otherwise by ``quantile``, ``cdf`` and ``pdf`` together, and
    stays as it is unless a schedule overrides ``observe``.
    """

    t_min: float
    t_max: float
    moments: Tensor
    updates: Tensor

    @abstractmethod
    def level(self, t: Times) -> Level:
        """The level at time ``t``, elementwise and strictly monotone in sigma / alpha."""

    @torch.no_grad()
    def inverse(self, ratio: Times) -> Times:
        """The time at which sigma / alpha is ``ratio``: ``inverse(level(t).ratio) == t``.

        By bisection between ``t_min`` and ``t_max``, in double precision; a schedule whose
        inverse has a formula overrides it.
        """
        below = torch.full_like(ratio, self.t_min, dtype=torch.float64)
        above = torch.full_like(below, self.t_max)
        for _ in range(_HALVINGS):
            middle = 0.5 * (below + above)
            rises = self.level(middle).ratio < ratio
            below, above = torch.where(rises, middle, below), torch.where(rises, above, middle)
        return (0.5 * (below + above)).to(ratio.dtype)

    def quantile(self, u: Times) -> Times:
        """The time below which a share ``u`` in [0, 1] of the training draws lies."""
        return self.t_min + u * (self.t_max - self.t_min)

    def cdf(self, t: Times) -> Times:
        """The share of training draws below ``t``: the inverse of :meth:`quantile`."""
        return (t - self.t_min) / (self.t_max - self.t_min)

    def pdf(self, t: Times) -> Times:
        """The density of training draws at ``t``, per unit of t."""
        return t * 0 + 1.0 / (self.t_max - self.t_min)

    def observe(self, t: PerRow, loss: PerRow, pdf: PerRow, rows: Rows) -> None:
        """Learn from all rows of one optimiser step. Does nothing unless a schedule learns.

        ``loss`` is the mean over each row's noised positions at time ``t``, ``pdf`` the density
        that the row's t was drawn from, and ``rows`` marks those that may be used (rows without
        given positions). Not called where no row may be, so that a momentum moves nothing. What
        a schedule learns are buffers, and so is the state of what updates them: both are in the
        ``state_dict``, and a distributed wrapper does not look for their gradients.
        """

    def learn(self, name: str, value: Tensor) -> None:
        """Hold ``value`` as the buffer ``name``, and as ``moments`` and ``updates`` what
        :func:`fit` keeps of it."""
        self.register_buffer(name, value)
        self.register_buffer("moments", torch.zeros(2, *value.shape, dtype=value.dtype))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @property
    def learns(self) -> bool:
        """Whether the density follows the measured loss."""
        return type(self).observe is not NoiseSchedule.observe


@torch.no_grad()
def fit(
    value: Tensor, error: Callable[[Tensor], Tensor], moments: Tensor, updates: Tensor, rate: float
) -> None:
    """Move the buffer ``value``, which a schedule learns, against the gradient of ``error`` there.

    One step of Adam (1412.6980; betas 0.9 and 0.99), in place. ``moments``, of shape
    (2, *value.shape), and the scalar count ``updates`` are its state: buffers as well.
    """
    with torch.enable_grad():
        leaf = value.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(error(leaf), leaf)
    updates += 1
    first, second = moments
    first.lerp_(gradient, 0.1)
    second.lerp_(gradient.square(), 0.01)
    step = first / (1.0 - 0.9**updates)
    scale = (second / (1.0 - 0.99**updates)).sqrt() + 1e-8
    value -= rate * step / scale


class StraightLine(NoiseSchedule):
    """x = (1 - t) x0 + t noise, for t from 0 to 1: the line of rectified flow (2209.03003)."""

    def level(self, t: Tensor) -> Level:
        return Level(1.0 - t, t)

    def inverse(self, ratio: Tensor) -> Tensor:
        return ratio / (1.0 + ratio)

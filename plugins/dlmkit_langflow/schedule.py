"""LangFlow's information-uniform schedule (2604.11748): noise levels from a fitted Gumbel curve."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.types import PerRow, Rows
from dlmkit_langflow import configs


class Gumbel(NoiseSchedule):
    """t is log(sigma^2 / alpha^2), variance preserving, and its density that of a Gumbel variable.

    The cross-entropy is taken to be H exp(-exp(-(t - mu) / beta)), so that equal shares of draws
    stand for equal amounts of information. ``curve`` holds mu, log beta and log H; they follow
    the squared error of that fit, by Adam, whose moments are buffers as well.
    """

    curve: Tensor
    moments: Tensor
    updates: Tensor

    def __init__(self, config: configs.Gumbel, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        start = [config.location, math.log(config.scale), math.log(config.height)]
        self.register_buffer("curve", torch.tensor(start, dtype=torch.float64))
        self.register_buffer("moments", torch.zeros(2, 3, dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @property
    def t_min(self) -> float:  # type: ignore[override]
        """The quantile of the share ``clip``: it moves as the curve is fitted."""
        return float(self.quantile(self.curve.new_zeros(())))

    @property
    def t_max(self) -> float:  # type: ignore[override]
        """The quantile of the share 1 - ``clip``."""
        return float(self.quantile(self.curve.new_ones(())))

    def level(self, t: Tensor) -> Level:
        return Level.preserving(t)

    def inverse(self, ratio: Tensor) -> Tensor:
        return 2.0 * torch.log(ratio)

    def quantile(self, u: Tensor) -> Tensor:
        clip = self.config.clip
        share = clip + u.double() * (1.0 - 2.0 * clip)
        return (self.curve[0] - self._beta * torch.log(-torch.log(share))).to(u.dtype)

    def cdf(self, t: Tensor) -> Tensor:
        clip = self.config.clip
        share = torch.exp(-torch.exp(-self._standard(t)))
        return ((share - clip) / (1.0 - 2.0 * clip)).to(t.dtype)

    def pdf(self, t: Tensor) -> Tensor:
        z = self._standard(t)
        density = torch.exp(-z - torch.exp(-z)) / self._beta
        return (density / (1.0 - 2.0 * self.config.clip)).to(t.dtype)

    @property
    def _beta(self) -> Tensor:
        return self.curve[1].exp()

    def _standard(self, t: Tensor) -> Tensor:
        return (t.double() - self.curve[0]) / self._beta

    @torch.no_grad()
    def observe(self, t: PerRow, loss: PerRow, pdf: PerRow, rows: Rows) -> None:
        weights = rows.double() / rows.sum().clamp(min=1)
        with torch.enable_grad():
            curve = self.curve.clone().requires_grad_()
            error = entropy(t.double(), curve) - loss.double()
            squares = torch.where(rows, error, 0.0).square()
            (gradient,) = torch.autograd.grad((weights * squares).sum(), curve)
        self.updates += 1
        first, second = self.moments
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.01)
        step = first / (1.0 - 0.9**self.updates)
        scale = (second / (1.0 - 0.99**self.updates)).sqrt() + 1e-8
        self.curve -= self.config.learning_rate * step / scale


def entropy(t: Tensor, curve: Tensor) -> Tensor:
    """The fitted cross-entropy at ``t``: H exp(-exp(-(t - mu) / beta))."""
    location, log_scale, log_height = curve
    return torch.exp(log_height - torch.exp(-(t - location) / log_scale.exp()))

"""Variance-exploding schedules: t is the noise's standard deviation (CDCD, section 3).

They differ in the density that times are drawn from: fixed, or warped so that the loss rises
linearly in the uniform variable (CDCD, appendix A).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.schedule import Level, NoiseSchedule, fit
from dlmkit.core.warp import Edges, LossWarped, Warped, interpolate
from dlmkit.types import PerRow, Rows
from dlmkit_cdcd import configs


class VarianceExploding(NoiseSchedule):
    """alpha is 1 and sigma is t."""

    def level(self, t: Tensor) -> Level:
        return Level.of_ratio(t)

    def inverse(self, ratio: Tensor) -> Tensor:
        return ratio


class FixedDensity(VarianceExploding):
    """Times drawn uniformly, or uniformly in log t."""

    def __init__(self, config: configs.VarianceExploding, context: BuildContext) -> None:
        super().__init__()
        self.t_min, self.t_max = config.t_min, config.t_max
        self.log = config.density == "log-uniform"
        self.span = math.log(self.t_max / self.t_min)

    def quantile(self, u: Tensor) -> Tensor:
        return self.t_min * torch.exp(u * self.span) if self.log else super().quantile(u)

    def cdf(self, t: Tensor) -> Tensor:
        return torch.log(t / self.t_min) / self.span if self.log else super().cdf(t)

    def pdf(self, t: Tensor) -> Tensor:
        return 1.0 / (t * self.span) if self.log else super().pdf(t)


class TimeWarp(VarianceExploding, Warped):
    """CDCD's learned warping (appendix A): F~ is fitted to the loss, its normal form is drawn from.

    ``logits[0]`` are l^t, ``logits[1]`` are l^u; the last row of ``moments`` counts updates.
    Adam's moments are buffers too, so that a checkpoint holds them.
    """

    logits: Tensor
    average: Tensor

    def __init__(self, config: configs.TimeWarp, context: BuildContext) -> None:
        ends = torch.linspace(0.0, 1.0, config.bins + 1, dtype=torch.float64)
        t_edges = config.t_min + ends * (config.t_max - config.t_min)
        super().__init__(config.t_min, config.t_max, t_edges, ends.clone())
        self.config = config
        start = torch.full((2, config.bins), -math.log(config.bins), dtype=torch.float64)
        self.learn("logits", start)
        self.register_buffer("average", start.clone())

    def _widths(self, logits: Tensor) -> tuple[Edges, Edges]:
        """(w^t, w^u), each positive and summing to one."""
        widths = logits.softmax(dim=1) + self.config.floor
        widths = widths / widths.sum(dim=1, keepdim=True)
        return widths[0], widths[1]

    def _fitted(self, t: PerRow, logits: Tensor) -> Tensor:
        """F~(t): the unnormalised CDF, whose widths in u are exp(l^u)."""
        w_t, _ = self._widths(logits)
        share = (t - self.t_min) / (self.t_max - self.t_min)
        xs, ys = (F.pad(widths.cumsum(0), (1, 0)) for widths in (w_t, logits[1].exp()))
        return interpolate(share, xs, ys)

    @torch.no_grad()
    def observe(self, t: PerRow, loss: PerRow, pdf: PerRow, rows: Rows) -> None:
        weights = rows / pdf.double()
        weights = weights / weights.sum().clamp(min=1e-30)

        def error(logits: Tensor) -> Tensor:
            return (weights * (self._fitted(t.double(), logits) - loss.double()).square()).sum()

        fit(self.logits, error, self.moments, self.updates, self.config.learning_rate)
        self.average.lerp_(self.logits, 1.0 - self.config.ema)
        w_t, w_u = self._widths(self.average)
        w_u = w_u * (w_u / w_t) ** (1.0 / self.config.temperature - 1.0)
        w_u = w_u / w_u.sum()
        self._publish(w_t, torch.lerp(w_u, w_t, self.config.uniform_mix))

    def _publish(self, t_widths: Edges, u_widths: Edges) -> None:
        """Draw from the CDF with these positive widths from now on."""
        widths = torch.stack((t_widths, u_widths))
        edges = F.pad(widths.cumsum(dim=1) / widths.sum(dim=1, keepdim=True), (1, 0))
        self.t_edges.copy_(self.t_min + edges[0] * (self.t_max - self.t_min))
        self.u_edges.copy_(edges[1])


class TimeWarpTable(VarianceExploding, LossWarped):
    """Warping from a table of losses, whose bins are equal in log t."""

    def __init__(self, config: configs.TimeWarpTable, context: BuildContext) -> None:
        ends = torch.linspace(0.0, 1.0, config.bins + 1, dtype=torch.float64)
        ratio = config.t_max / config.t_min
        edges = config.t_min * ratio**ends
        super().__init__(config.t_min, config.t_max, edges, config.log_uniform_mix, config)

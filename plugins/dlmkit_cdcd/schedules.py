"""Variance-exploding schedules: t is the noise's standard deviation (CDCD, section 3).

They differ in the density that times are drawn from: fixed, or warped so that the loss rises
linearly in the uniform variable (CDCD, appendix A).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.schedule import Level, NoiseSchedule, fit
from dlmkit.types import PerRow, Rows
from dlmkit_cdcd import configs

Edges = Float[Tensor, "K"]


def _piece(x: Tensor, edges: Edges) -> Tensor:
    """The piece of ``edges`` that each ``x`` lies in; both ends belong to the outer pieces."""
    return torch.searchsorted(edges[1:-1], x.contiguous(), right=True)


def interpolate(x: Tensor, xs: Edges, ys: Edges) -> Tensor:
    """The piecewise-linear function through (xs, ys), xs increasing."""
    lines = torch.stack((xs[:-1], xs.diff(), ys[:-1], ys[1:]))
    start, width, low, high = lines[:, _piece(x, xs)]
    return torch.lerp(low, high, (x - start) / width)


def slope(x: Tensor, xs: Edges, ys: Edges) -> Tensor:
    """The derivative of :func:`interpolate`."""
    return (ys.diff() / xs.diff())[_piece(x, xs)]


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


class Warped(VarianceExploding):
    """Times drawn from a piecewise-linear CDF through (``t_edges``, ``u_edges``), both buffers.

    The density is that of the tables as they stand, after every mix, temperature and average,
    so that 1 / pdf is the importance weight of a draw.
    """

    t_edges: Tensor
    u_edges: Tensor

    def __init__(self, times: configs.Times, t_edges: Edges, u_edges: Edges) -> None:
        super().__init__()
        self.t_min, self.t_max = times.t_min, times.t_max
        self.register_buffer("t_edges", t_edges)
        self.register_buffer("u_edges", u_edges)

    def quantile(self, u: Tensor) -> Tensor:
        t = interpolate(u.to(self.u_edges.dtype), self.u_edges, self.t_edges)
        return t.clamp(self.t_min, self.t_max).to(u.dtype)

    def cdf(self, t: Tensor) -> Tensor:
        return interpolate(t.to(self.t_edges.dtype), self.t_edges, self.u_edges).to(t.dtype)

    def pdf(self, t: Tensor) -> Tensor:
        return slope(t.to(self.t_edges.dtype), self.t_edges, self.u_edges).to(t.dtype)

    def _publish(self, t_widths: Edges, u_widths: Edges) -> None:
        """Draw from the CDF with these positive widths from now on."""
        widths = torch.stack((t_widths, u_widths))
        edges = F.pad(widths.cumsum(dim=1) / widths.sum(dim=1, keepdim=True), (1, 0))
        self.t_edges.copy_(self.t_min + edges[0] * (self.t_max - self.t_min))
        self.u_edges.copy_(edges[1])


class TimeWarp(Warped):
    """CDCD's learned warping (appendix A): F~ is fitted to the loss, its normal form is drawn from.

    ``logits[0]`` are l^t, ``logits[1]`` are l^u; the last row of ``moments`` counts updates.
    Adam's moments are buffers too, so that a checkpoint holds them.
    """

    logits: Tensor
    average: Tensor

    def __init__(self, config: configs.TimeWarp, context: BuildContext) -> None:
        ends = torch.linspace(0.0, 1.0, config.bins + 1, dtype=torch.float64)
        super().__init__(config, config.t_min + ends * (config.t_max - config.t_min), ends.clone())
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


class TimeWarpTable(Warped):
    """Warping from a table: the mean of each bin's last losses, made monotone (our own form).

    The lowest bin's loss is subtracted, so that F starts at 0 and no lump of draws sits at
    t_min. Draws begin log-uniform and fade to the table over the first updates.
    """

    means: Tensor
    counts: Tensor
    updates: Tensor

    def __init__(self, config: configs.TimeWarpTable, context: BuildContext) -> None:
        ends = torch.linspace(0.0, 1.0, config.bins + 1, dtype=torch.float64)
        ratio = config.t_max / config.t_min
        super().__init__(config, config.t_min * ratio**ends, ends.clone())
        self.config = config
        self.register_buffer("means", torch.zeros(config.bins, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(config.bins, dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, t: PerRow, loss: PerRow, pdf: PerRow, rows: Rows) -> None:
        seen = torch.stack((rows.double(), torch.where(rows, loss.double(), 0.0)))
        sums = seen.new_zeros(2, len(self.counts))
        new, total = sums.index_add_(1, _piece(t.double(), self.t_edges), seen)
        # a bin keeps at most `memory` samples, so old losses give way within that many draws
        kept = torch.minimum(self.counts, (self.config.memory - new).clamp_(min=0.0))
        torch.add(kept, new, out=self.counts)
        self.means.mul_(kept).add_(total).div_(self.counts.clamp(min=1e-30))
        self.updates += 1
        self._redraw()

    def _redraw(self) -> None:
        """Half of a rise between two bins' losses goes to each of the two bins."""
        rise = F.pad(0.5 * isotonic(self.means, self.counts).diff(), (1, 1))
        widths = rise[1:] + rise[:-1]
        flat, total = torch.full_like(widths, 1.0 / len(widths)), widths.sum()
        widths = torch.where(total > 0, widths / total.clamp(min=1e-30), flat)
        fade = (1.0 - self.updates / self.config.fade).clamp_(min=0.0)
        mix = self.config.log_uniform_mix
        mixed = torch.lerp(widths, flat, mix + (1.0 - mix) * fade)
        torch.div(mixed.cumsum(0), mixed.sum(), out=self.u_edges[1:])


def isotonic(values: Edges, weights: Edges) -> Edges:
    """The non-decreasing sequence nearest to ``values`` in weighted least squares.

    The max-min formula over all intervals (Barlow and others 1972); entries without weight take
    the value of their neighbours.
    """
    sums = F.pad(torch.stack((values * weights, weights)).cumsum(dim=1), (1, 0))
    # the interval from i to j: sums to the end of j less those to the start of i, none if j < i
    total, mass = (sums[:, None, 1:] - sums[:, :-1, None]).triu_()
    mean = (total / mass.clamp(min=1e-30)).masked_fill_(mass <= 0, torch.inf)
    lowest = mean.flip(1).cummin(dim=1).values.flip(1)
    lowest = lowest.nan_to_num_(-torch.inf, -torch.inf, -torch.inf)
    fitted: Edges = lowest.cummax(dim=0).values.diagonal().nan_to_num(0.0, 0.0, 0.0)
    return fitted

"""Schedules whose training times follow a table, and one that makes it of the measured losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.options import LossTable
from dlmkit.core.schedule import NoiseSchedule
from dlmkit.types import PerRow, Rows

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


class Warped(NoiseSchedule):
    """Times drawn from a piecewise-linear CDF through (``t_edges``, ``u_edges``), both buffers.

    The density is that of the tables as they stand, after every mix, temperature and average,
    so that 1 / pdf is the importance weight of a draw.
    """

    t_edges: Tensor
    u_edges: Tensor

    def __init__(self, t_min: float, t_max: float, t_edges: Edges, u_edges: Edges) -> None:
        super().__init__()
        self.t_min, self.t_max = t_min, t_max
        self.register_buffer("t_edges", t_edges)
        self.register_buffer("u_edges", u_edges)

    def quantile(self, u: Tensor) -> Tensor:
        t = interpolate(u.to(self.u_edges.dtype), self.u_edges, self.t_edges)
        return t.clamp(self.t_min, self.t_max).to(u.dtype)

    def cdf(self, t: Tensor) -> Tensor:
        return interpolate(t.to(self.t_edges.dtype), self.t_edges, self.u_edges).to(t.dtype)

    def pdf(self, t: Tensor) -> Tensor:
        return slope(t.to(self.t_edges.dtype), self.t_edges, self.u_edges).to(t.dtype)


class LossWarped(Warped):
    """Times drawn where the loss rises: the mean of each bin's last losses, made monotone.

    CDCD's principle (2211.15089, appendix A: the loss is to rise linearly in the uniform variable)
    by a table in place of a fit, our own form. The lowest bin's loss is subtracted, so that F
    starts at 0 and no lump of draws sits at t_min. Draws begin uniform over the bins and fade to
    the table over the first updates; a share ``mix`` stays.
    """

    means: Tensor
    counts: Tensor
    updates: Tensor

    def __init__(
        self, t_min: float, t_max: float, t_edges: Edges, mix: float, options: LossTable
    ) -> None:
        bins = len(t_edges) - 1
        super().__init__(
            t_min, t_max, t_edges, torch.linspace(0.0, 1.0, bins + 1, dtype=torch.float64)
        )
        self.options, self.mix = options, mix
        self.register_buffer("means", torch.zeros(bins, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(bins, dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, t: PerRow, loss: PerRow, pdf: PerRow, rows: Rows) -> None:
        seen = torch.stack((rows.double(), torch.where(rows, loss.double(), 0.0)))
        sums = seen.new_zeros(2, len(self.counts))
        new, total = sums.index_add_(1, _piece(t.double(), self.t_edges), seen)
        # a bin keeps at most `memory` samples, so old losses give way within that many draws
        kept = torch.minimum(self.counts, (self.options.memory - new).clamp_(min=0.0))
        torch.add(kept, new, out=self.counts)
        self.means.mul_(kept).add_(total).div_(self.counts.clamp(min=1e-30))
        self.updates += 1
        self._redraw()

    def widths(self) -> Edges:
        """How much of the draws each bin is to have, in any unit: of a rise between two bins'
        losses, each of the two gets half."""
        rise = F.pad(0.5 * isotonic(self.means, self.counts).diff(), (1, 1))
        return rise[1:] + rise[:-1]

    def _redraw(self) -> None:
        widths = self.widths()
        flat, total = torch.full_like(widths, 1.0 / len(widths)), widths.sum()
        widths = torch.where(total > 0, widths / total.clamp(min=1e-30), flat)
        fade = (1.0 - self.updates / self.options.fade).clamp_(min=0.0)
        mixed = torch.lerp(widths, flat, self.mix + (1.0 - self.mix) * fade)
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

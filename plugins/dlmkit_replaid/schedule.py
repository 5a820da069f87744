"""Times drawn where a bound's integrand is large, so that its estimate varies least."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.schedule import Level, NoiseSchedule, StraightLine
from dlmkit.core.warp import LossWarped
from dlmkit.types import PerRow, Rows
from dlmkit_replaid import plugin


class _Roots(StraightLine, LossWarped):
    """A bin gets draws by the root of its mean, or of the mean of all where it has seen nothing.
    Only its draws are asked for."""

    def widths(self) -> Tensor:
        known = self.counts > 0
        everywhere = (self.means * known).sum() / known.sum().clamp(min=1)
        return torch.where(known, self.means, everywhere).sqrt()


class LeastVariance(NoiseSchedule):
    """p proportional to sqrt(E[f^2]), of all densities the one whose estimate f / p of a bound's
    integral, of an integrand f, varies least (VDM, 2107.00630, and RePlaid, 2605.18530, fit a
    network to that end by the gradient of the variance).

    A row's loss is f / p of the density that its time was drawn from. If f varies little among rows
    of one level, p is proportional to E[f], the rise of the cross-entropy, which is then linear in
    u: RePlaid's reason for CDCD's time warping. Times are the ``base``'s.
    """

    def __init__(self, config: plugin.LeastVariance, context: BuildContext) -> None:
        super().__init__()
        self.base: NoiseSchedule = context.build("schedule", config.base)
        edges = torch.linspace(0.0, 1.0, config.bins + 1, dtype=torch.float64)
        self.shares = _Roots(0.0, 1.0, edges, config.mix, config)

    t_min = property(lambda self: self.base.t_min)
    t_max = property(lambda self: self.base.t_max)

    def level(self, t: Tensor) -> Level:
        return self.base.level(t)

    def inverse(self, ratio: Tensor) -> Tensor:
        return self.base.inverse(ratio)

    def quantile(self, u: Tensor) -> Tensor:
        return self.base.quantile(self.shares.quantile(u))

    def cdf(self, t: Tensor) -> Tensor:
        return self.shares.cdf(self.base.cdf(t))

    def pdf(self, t: Tensor) -> Tensor:
        return self.shares.pdf(self.base.cdf(t)) * self.base.pdf(t)

    @torch.no_grad()
    def observe(self, t: PerRow, loss: PerRow, pdf: PerRow, rows: Rows) -> None:
        t = t.double()
        integrand = loss.double() * pdf.double() / self.base.pdf(t)
        self.shares.observe(self.base.cdf(t), integrand.square(), pdf, rows)

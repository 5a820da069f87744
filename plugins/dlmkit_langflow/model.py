"""LangFlow (2604.11748): a schedule of equal information, and cross-entropy with a skip."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import OutputPrior
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.schedule import Level, NoiseSchedule, fit
from dlmkit.types import PerRow, Rows
from dlmkit_langflow.plugin import GumbelCurve, SkipOptions


class SkippedCrossEntropy(RecipeObjective):
    """The logits get the noisy token's own likelihood, which rises over ``ramp`` steps."""

    def __init__(self, config: SkipOptions, context: BuildContext) -> None:
        super().__init__(context, config)
        self.self_conditioning, self.ramp = config.self_conditioning, config.ramp

    def denoise(self, strength: float | Tensor = 1.0) -> OutputPrior:
        return OutputPrior(self.space, self.network, self.self_conditioning > 0, strength)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised = self.noised(batch, draws, denoise=self.denoise(draws.risen(self.ramp)))
        logits = self.space.logits(noised.query()).float()
        entropy = F.cross_entropy(logits.transpose(1, 2), batch.ids, reduction="none")
        return self.loss(entropy, noised)


class Gumbel(NoiseSchedule):
    """t is log(sigma^2 / alpha^2), variance preserving, and its density that of a Gumbel variable.

    The cross-entropy is taken to be H exp(-exp(-(t - mu) / beta)): equal shares of draws are equal
    information. Adam moves ``curve``, of mu, log beta and log H, by the squared error of that fit.
    """

    curve: Tensor

    def __init__(self, config: GumbelCurve, context: BuildContext) -> None:
        super().__init__()
        self.clip, self.rate = config.clip, config.learning_rate
        start = [config.location, math.log(config.scale), math.log(config.height)]
        self.learn("curve", torch.tensor(start, dtype=torch.float64))

    t_min = property(lambda self: float(self.quantile(self.curve.new_zeros(()))))
    t_max = property(lambda self: float(self.quantile(self.curve.new_ones(()))))

    def level(self, t: Tensor) -> Level:
        return Level.preserving(t)

    def inverse(self, ratio: Tensor) -> Tensor:
        return 2.0 * torch.log(ratio)

    def quantile(self, u: Tensor) -> Tensor:
        share = self.clip + u.double() * (1.0 - 2.0 * self.clip)
        return (self.curve[0] - self.curve[1].exp() * torch.log(-torch.log(share))).to(u.dtype)

    def cdf(self, t: Tensor) -> Tensor:
        share = torch.exp(-torch.exp(-self._standard(t)))
        return ((share - self.clip) / (1.0 - 2.0 * self.clip)).to(t.dtype)

    def pdf(self, t: Tensor) -> Tensor:
        z = self._standard(t)
        density = torch.exp(-z - torch.exp(-z)) / self.curve[1].exp()
        return (density / (1.0 - 2.0 * self.clip)).to(t.dtype)

    def _standard(self, t: Tensor) -> Tensor:
        return (t.double() - self.curve[0]) / self.curve[1].exp()

    def observe(self, t: PerRow, loss: PerRow, pdf: PerRow, rows: Rows) -> None:
        weights = rows.double() / rows.sum().clamp(min=1)

        def error(curve: Tensor) -> Tensor:
            off = entropy(t.double(), curve) - loss.double()
            return (weights * torch.where(rows, off, 0.0).square()).sum()

        fit(self.curve, error, self.moments, self.updates, self.rate)


def entropy(t: Tensor, curve: Tensor) -> Tensor:
    """The fitted cross-entropy at ``t``: H exp(-exp(-(t - mu) / beta))."""
    location, log_scale, log_height = curve
    return torch.exp(log_height - torch.exp(-(t - location) / log_scale.exp()))

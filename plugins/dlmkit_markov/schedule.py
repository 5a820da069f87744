"""A variance-exploding schedule whose times follow the exact cross-entropy."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.noise import Noise
from dlmkit.testing.markov import MarkovNetwork, MarkovSpace
from dlmkit_markov import configs
from dlmkit_markov.data import MarkovData, padded
from dlmkit_markov.model import chain_of


class ExactWarp(NoiseSchedule):
    """sigma is t; the share of times below t is (CE(t) - CE(t_min)) / (CE(t_max) - CE(t_min)).

    CE is the cross-entropy of the exact posterior, in nats per token: what CDCD's time warping
    (appendix A) would learn here. It is measured at log-spaced levels on the same texts and
    noise, and linear in log t between them.
    """

    log_t: Tensor
    share: Tensor

    def __init__(self, config: configs.ExactWarp, context: BuildContext) -> None:
        super().__init__()
        self.t_min, self.t_max = config.t_min, config.t_max
        ends = math.log(config.t_min), math.log(config.t_max)
        self.register_buffer("log_t", torch.linspace(*ends, config.levels, dtype=torch.float64))
        loss = cross_entropy(
            chain_of(context), context.part("space"), self.log_t.exp(), config.rows
        )
        self.register_buffer("share", increasing(loss))

    def level(self, t: Tensor) -> Level:
        return Level.of_ratio(t)

    def inverse(self, ratio: Tensor) -> Tensor:
        return ratio

    def quantile(self, u: Tensor) -> Tensor:
        log_t = _interpolate(u.to(self.share.dtype), self.share, self.log_t)
        return log_t.exp().clamp(self.t_min, self.t_max).to(u.dtype)

    def cdf(self, t: Tensor) -> Tensor:
        return _interpolate(t.to(self.log_t.dtype).log(), self.log_t, self.share).to(t.dtype)

    def pdf(self, t: Tensor) -> Tensor:
        log_t = t.to(self.log_t.dtype).log()
        k = _piece(log_t, self.log_t)
        slope = (self.share[k + 1] - self.share[k]) / (self.log_t[k + 1] - self.log_t[k])
        return (slope / t).to(t.dtype)


def increasing(loss: Float[Tensor, "K"], least: float = 1e-6) -> Float[Tensor, "K"]:
    """``loss`` as shares from 0 to 1 that rise by at least about ``least`` from one to the next.

    Where the loss is flat (no noise, or nothing but noise) sampling error must not make the
    quantile jump or run backwards.
    """
    widths = loss.diff().clamp(min=0.0)
    widths = widths / widths.sum() + least
    return torch.cat((widths.new_zeros(1), widths.cumsum(0) / widths.sum()))


@torch.no_grad()
def cross_entropy(
    data: MarkovData, space: MarkovSpace, sigma: Float[Tensor, "K"], rows: int
) -> Float[Tensor, "K"]:
    """Nats a token of the exact posterior at each noise, on the first validation rows."""
    batch = data.validation(rows)
    x0 = space.embed(batch.ids)
    nothing = Conditioning.of(x0, torch.zeros_like(batch.attend), batch.attend)
    noise = Noise.keyed(0, torch.arange(rows), 0)
    network = MarkovNetwork(padded(data.chain), space)
    losses = []
    for value in sigma:
        level = Level(torch.ones(rows).to(sigma), value.expand(rows))
        x = space.corruption.corrupt(x0, level, noise)
        query = network(space.corruption.input(x, level), level, nothing, x0)
        losses.append(-query.gather(-1, batch.ids[..., None]).mean())
    return torch.stack(losses)


def _piece(x: Tensor, edges: Tensor) -> Tensor:
    return (torch.searchsorted(edges, x.contiguous(), right=True) - 1).clamp(0, len(edges) - 2)


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    k = _piece(x, xs)
    return torch.lerp(ys[k], ys[k + 1], (x - xs[k]) / (xs[k + 1] - xs[k]))

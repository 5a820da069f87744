"""S-FLM (2605.11125): flow matching along the great circles of a sphere.

A position at the share tau of its way from a token to noise is at tau times their angle. Here the
sphere's radius is sqrt(D), so that channels have a mean square of 1, and tau = sigma / (alpha +
sigma), so that levels of every schedule have one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import Corruption
from dlmkit.core.options import Normalised
from dlmkit.core.points import NormalisedSpace
from dlmkit.core.sampler import BoundDenoise, Sampler, Step, per_row
from dlmkit.core.schedule import Level, StraightLine
from dlmkit.core.warp import LossWarped
from dlmkit.noise import Noise
from dlmkit.types import Embedded, Logits
from dlmkit_flow import plugin

NEAR = 1e-6
"""Cosines stay this far from 1 and -1, where an angle has no derivative."""


def angles(cosines: Tensor) -> Tensor:
    return torch.acos(cosines.clamp(NEAR - 1.0, 1.0 - NEAR))


def noise_share(level: Level) -> Tensor:
    """tau: 0 is the token, 1 is noise."""
    share: Tensor = level.sigma / (level.alpha + level.sigma)
    return share


def slerp(x: Tensor, y: Tensor, share: Tensor) -> Tensor:
    """The point at ``share`` of the arc from ``x`` to ``y``, vectors of one norm."""
    angle = angles(F.cosine_similarity(x, y, dim=-1))[..., None]
    return (torch.sin((1.0 - share) * angle) * x + torch.sin(share * angle) * y) / torch.sin(angle)


def exponential(x: Tensor, tangent: Tensor) -> Tensor:
    """Where the great circle from ``x`` along ``tangent`` ends, after its length in units of |x|:
    cos(a) x + |x| sin(a) tangent / |tangent|, a = |tangent| / |x|."""
    angle = tangent.norm(dim=-1, keepdim=True) / x.norm(dim=-1, keepdim=True)
    return torch.cos(angle) * x + torch.sinc(angle / math.pi) * tangent


def direction(x: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """sum_v w_v log_x(e_v), (B, L, D): the logarithm of e at x is its part across x, as long as
    their arc. ``points`` (V, D) and ``x`` have one norm."""
    cosines = x @ points.T / points.square().sum(dim=-1)
    angle = angles(cosines)
    weights = weights * angle / torch.sin(angle)
    return weights @ points - (weights * cosines).sum(dim=-1, keepdim=True) * x


class SphereCorruption(Corruption):
    """x is at tau of the arc from the token to a uniform point of the sphere."""

    def corrupt(self, x0: Tensor, level: Level, noise: Noise) -> Tensor:
        share = noise_share(level.like(x0))
        return slerp(x0, self.prior(x0, level, noise), share)

    def prior(self, like: Tensor, level: Level, noise: Noise) -> Tensor:
        drawn = noise.normal(0, like.shape[1:], like.dtype)
        return math.sqrt(like.shape[-1]) * F.normalize(drawn, dim=-1)

    def input(self, x: Tensor, level: Level) -> Embedded:
        return x

    def log_likelihood(self, points: Tensor, x: Tensor, level: Level) -> Logits:
        """(D - 2) log(sin(a / tau) / sin a) at the angle a of token and x, a < pi tau: the angle
        of a uniform point has the density sin^(D-2), and the sphere that much of each angle."""
        angle = angles(x @ points.T.to(x.dtype) / x.shape[-1])
        inner = (angle / noise_share(level.like(x))).clamp(max=math.pi - 1e-4)
        return (x.shape[-1] - 2) * (torch.sin(inner).log() - torch.sin(angle).log())


class SphereSpace(NormalisedSpace):
    """Points of norm sqrt(D) that noise leaves on their sphere."""

    def __init__(self, config: Normalised, context: BuildContext) -> None:
        super().__init__(config, context)
        self.corruption = SphereCorruption()


def plain_from(size: int, dim: int, delta: float) -> float:
    """alpha*, where S-FLM truncates: the share of the way from noise from which on the token is the
    nearest of ``size`` random points with a chance of 1 - ``delta``; 1 where D is too low for the
    bound."""
    cosine = math.sqrt(2.0 * math.log(2.0 * max(1, size - 1) / delta) / dim)
    return 2.0 / math.pi * math.asin(min(1.0, cosine))


class Truncated(StraightLine, LossWarped):
    """alpha = 1 - t and sigma = t, for t from 1 - alpha* up to 0.999; bins are equal in t.

    S-FLM fits a spline to |dL / dt|; the table is ours.
    """

    def __init__(self, config: plugin.Truncated, context: BuildContext) -> None:
        size, dim = context.vocab_size, context.part("space").dim
        low = max(1e-3, 1.0 - plain_from(size, dim, config.delta))
        edges = torch.linspace(low, 0.999, config.bins + 1, dtype=torch.float64)
        super().__init__(low, 0.999, edges, config.mix, config)


class GeodesicEuler(Sampler):
    """x' = exp_x((1 - tau' / tau) sum_v p_v log_x(e_v)): Euler's step of the mean velocity.

    What guidance moves of the predicted x0 moves the velocity by its part across x.
    """

    def __init__(self, config: plugin.Geodesic, context: BuildContext) -> None:
        self.space, self.top = context.part("space"), config.top

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        prediction = denoise(x, step.here, step.previous)
        logits = self.space.logits(prediction.query)
        if self.top is not None and self.top < logits.shape[-1]:
            least = logits.topk(self.top, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        every = torch.arange(self.space.vocab_size, device=x.device)[None]
        points = self.space.embed(every)[0].to(x.dtype)
        velocity = direction(x, points, logits.softmax(dim=-1).to(x.dtype))
        guided = prediction.x0_step - prediction.x0_mean
        across = guided - (guided * x).mean(dim=-1, keepdim=True) * x
        left = per_row(noise_share(step.next) / noise_share(step.here), x)
        moved = exponential(x, (1.0 - left) * (velocity + 0.5 * math.pi * across))
        return rows.where(step.last, prediction.x0_step, moved), prediction, state

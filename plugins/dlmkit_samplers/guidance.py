"""Guidance: what a sampler steps towards, moved; what statistics and decoding read, left."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise, Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.guidance import Guidance, Guided, extrapolated, read_from, stepping_to
from dlmkit.core.network import Conditioning
from dlmkit.core.sampler import per_row
from dlmkit.core.schedule import Level
from dlmkit_samplers import configs


class ScoreTemperature(Guidance):
    """Divides the score by T (CDCD's score temperature): below 1 it sharpens, 1 is the identity.

    The score at the ratio s is (x0 - x) / s^2 with x over alpha, so a score over T is that of
    x0 + ((1 - T) / T)(x0 - x) (Plaid, 2305.18619, section 6.2). That is its rate. For a constant x0
    the flow dx / d ln s = (x - x0) / T leaves r^(1 / T) of x - x0 where s falls to r s, which is
    what Euler's step leaves of x0 + ((r - r^(1 / T)) / (1 - r))(x0 - x): steps of samplers go
    there, however long they are, and one that ends clean to x0. By its rate alone a step that takes
    more than T of the noise away would go beyond x0, to noise of the other sign. The slope at a
    step's end, which a second evaluation asks for, is then that at its start. Given positions keep
    their own embedding.
    """

    def __init__(self, config: configs.ScoreTemperature, context: BuildContext) -> None:
        self.temperature = config.temperature

    def wrap(self, denoise: Denoise) -> Denoise:
        return _Tempered(denoise, self)

    def extra(self, level: Level, step: tuple[Level, Level] | None) -> Tensor:
        """How far x0 moves away from x at ``level``, [B], in float64."""
        rate, here = 1.0 / self.temperature, level.ratio.double()
        start, end = (here, here) if step is None else (end.ratio.double() for end in step)
        ended = here <= end
        r = end / torch.where(ended, start, here)
        left = r**rate
        slope = torch.where(r > 1.0 - 1e-6, rate, (1.0 - left) / (1.0 - r))
        return torch.where(ended & (left > 0), slope * r / left, slope) - 1.0


class _Tempered(Guided):
    guidance: ScoreTemperature

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        said = super().__call__(x, level, previous, conditioning)
        extra = per_row(self.guidance.extra(level, conditioning.step), x).to(x.dtype)
        moved = said.x0_step + extra * (said.x0_step - x / level.like(x).alpha)
        return stepping_to(moved, said, conditioning)


class SoftmaxTemperature(Guidance):
    """Divides the logits by T: below 1 tokens are drawn from a sharper distribution, 1 is the
    identity. For models whose noise has no score.

    Samplers of discrete tokens draw from the prediction itself, so what statistics and decoding
    read moves with it, unlike under other guidance: certainty is that of the divided logits. The
    temperature of `masked:decoder` leaves its order and quota alone. Where queries are logits
    themselves their log-sum-exp stays, so that the scores of a token (SEDD, 2310.16834) have as
    much mass in all as before. It takes a space whose logits are linear in the query. Given
    positions keep their own x0.
    """

    def __init__(self, config: configs.SoftmaxTemperature, context: BuildContext) -> None:
        self.temperature = config.temperature
        self.space: EmbeddingSpace = context.part("space")

    def wrap(self, denoise: Denoise) -> Denoise:
        return _Softened(denoise, self)


class _Softened(Guided):
    guidance: SoftmaxTemperature

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        said, space = super().__call__(x, level, previous, conditioning), self.guidance.space
        query = said.query / self.guidance.temperature
        if space.query_dim == space.vocab_size:
            query = query + (said.lse - space.logits(query).logsumexp(dim=-1))[..., None]
        return read_from(query, said, space, conditioning)


class ClassifierFree(Guidance):
    """Extrapolates from the unconditional to the conditional score (2207.12598).

    CDCD guides so too and does not say by which formula or in which space: this one is ours.

    In x0, at one noise level, that is x0_null + scale (x0 - x0_null), and statistics and tokens are
    the conditional branch's. Where tokens are drawn, what is extrapolated is their log-probability
    (:func:`~dlmkit.core.guidance.extrapolated`). The null branch is the same rows without their
    clean embeddings, as the objective's conditioning dropout trains it, and of masked models with
    masks in their place; each branch keeps its own ``previous``.
    """

    def __init__(self, config: configs.ClassifierFree, context: BuildContext) -> None:
        self.scale, self.space = config.scale, context.part("space")

    def wrap(self, denoise: Denoise) -> Denoise:
        return _TwoBranches(denoise, self)


class _TwoBranches(Guided):
    guidance: ClassifierFree

    def start(self, x: Tensor) -> tuple[Any, Any]:
        return self.inner.start(x), self.inner.start(x)

    def __call__(
        self, x: Tensor, level: Level, previous: tuple[Any, Any], conditioning: Conditioning
    ) -> Prediction:
        with_given = self.inner(x, level, previous[0], conditioning)
        space, scale = self.guidance.space, self.guidance.scale
        dropped = conditioning.dropped(space.corruption.unknown)
        null = self.inner(x, level, previous[1], dropped)
        both = replace(with_given, feedback=(with_given.feedback, null.feedback))
        return extrapolated(null, both, scale, space, conditioning)


class InitialNoise(Guidance):
    """Starts from the prior's draw times a factor (CDCD's initial noise scale; 2305.10818 sweeps it
    too, by its reviews).

    The model is still told the highest level, so below 1 the start is closer to the mean of the
    data than the model expects, and texts are likelier and less diverse. At 0 all start alike.
    """

    def __init__(self, config: configs.InitialNoise, context: BuildContext) -> None:
        self.scale = config.scale

    def wrap(self, denoise: Denoise) -> Denoise:
        return denoise

    def start(self, x: Tensor) -> Tensor:
        return self.scale * x


class _FromALevelOn(Guidance, ABC):
    """Projects the x0 of rows whose noise-to-signal ratio is at most ``below``."""

    below: float

    @abstractmethod
    def project(self, x0: Tensor) -> Tensor:
        """Where ``x0`` is moved to."""

    def move(self, prediction: Prediction, x: Tensor, level: Level) -> Tensor:
        x0 = prediction.x0_step
        return rows.where(level.sigma <= self.below * level.alpha, self.project(x0), x0)


class Renormalised(_FromALevelOn):
    """Scales every predicted x0 to norm sqrt(D), where the embeddings are.

    CDCD tries it and leaves it out of its base model; from a level on is ours.

    An uncertain prediction is a mean of several embeddings and lies inside their sphere; moved
    out, it commits earlier. Given positions keep their own embedding.
    """

    def __init__(self, config: configs.Below, context: BuildContext) -> None:
        self.below = config.below
        self.radius = math.sqrt(context.part("space").dim)

    def project(self, x0: Tensor) -> Tensor:
        """``x0`` on the sphere; zero stays zero."""
        return self.radius * torch.nn.functional.normalize(x0, dim=-1)


class Clamped(_FromALevelOn):
    """Replaces every predicted x0 by the nearest embedding (Diffusion-LM, 2205.14217, section 4.2).

    There the clamping trick holds from the first step or from a level on, here ``below``.
    """

    def __init__(self, config: configs.Below, context: BuildContext) -> None:
        self.below = config.below
        self.space: EmbeddingSpace = context.part("space")

    def project(self, x0: Tensor) -> Tensor:
        """The embedding nearest to ``x0``: greatest x0 . e_v - |e_v|^2 / 2."""
        vocabulary = torch.arange(self.space.vocab_size, device=x0.device)
        table = self.space.embed(vocabulary[None])[0].to(x0.dtype)
        return table[(x0 @ table.T - 0.5 * table.square().sum(dim=-1)).argmax(dim=-1)]

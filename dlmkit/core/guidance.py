"""Guidance: wrappers of a denoiser that change what samplers step towards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlmkit.core.denoise import Denoise, Prediction, Wrapped
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.types import Query


class Guidance:
    """Moves the x0 that samplers step towards. Statistics and decoding read the unmoved prediction.

    One that needs more than a prediction, such as a second evaluation, overrides :meth:`wrap`.
    """

    def move(self, prediction: Prediction, x: Tensor, level: Level) -> Tensor:
        """What to step towards in place of ``prediction.x0_step``, by default that itself.

        ``x`` (B, L, ...) and ``level`` ([B]) are where it was predicted. Given positions keep
        their own embedding, whatever this says of them.
        """
        return prediction.x0_step

    def wrap(self, denoise: Denoise) -> Denoise:
        """A denoiser around ``denoise``; the first guidance of a recipe is the innermost."""
        return MovedDenoise(denoise, self)

    def start(self, x: Tensor) -> Tensor:
        """What sampling starts from in place of ``x``, drawn from the prior: ``x`` itself."""
        return x


def stepping_to(x0: Tensor, prediction: Prediction, conditioning: Conditioning) -> Prediction:
    """``prediction``, stepped towards ``x0`` at all positions that are not given."""
    kept = conditioning.given[..., None]
    return replace(prediction, x0_step=torch.where(kept, prediction.x0_step, x0))


def read_from(
    query: Query, prediction: Prediction, space: EmbeddingSpace, conditioning: Conditioning
) -> Prediction:
    """``prediction`` by another ``query``; given positions keep their own x0."""
    x0, lse = space.read(query)
    kept = conditioning.given.view(*x0.shape[:2], *(1,) * (x0.ndim - 2))
    x0_step = torch.where(kept, prediction.x0_step, x0)
    return replace(prediction, query=query, lse=lse, x0_mean=x0, x0_step=x0_step)


def extrapolated(
    weak: Prediction,
    strong: Prediction,
    scale: float,
    space: EmbeddingSpace,
    conditioning: Conditioning,
) -> Prediction:
    """``strong``, taken away from ``weak``: 1 changes nothing.

    Where samplers step towards x0, they step towards weak + scale (strong - weak) of the two: at
    one level that is so of the scores. Where tokens are ``drawn``, that holds of their logits, so
    that p is proportional to weak^(1 - scale) strong^scale (discrete guidance, 2412.10193), and
    statistics read it as well.
    """
    if space.drawn:
        query = weak.query + scale * (strong.query - weak.query)
        query = torch.where(weak.query == strong.query, weak.query, query)  # also of -inf
        return read_from(query, strong, space, conditioning)
    moved = weak.x0_step + scale * (strong.x0_step - weak.x0_step)
    return stepping_to(moved, strong, conditioning)


class Guided(Wrapped):
    """A denoiser under ``guidance``."""

    def __init__(self, inner: Denoise, guidance: Guidance) -> None:
        super().__init__(inner)
        self.guidance = guidance


class MovedDenoise(Guided):
    """Steps towards where its guidance moves x0."""

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        prediction = super().__call__(x, level, previous, conditioning)
        return stepping_to(self.guidance.move(prediction, x, level), prediction, conditioning)

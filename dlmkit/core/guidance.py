"""Guidance: wrappers of a denoiser that change what samplers step towards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dlmkit.core.denoise import Denoise, Prediction, Wrapped
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level


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
        return _Moved(denoise, self)

    def start(self, x: Tensor) -> Tensor:
        """What sampling starts from in place of ``x``, drawn from the prior: ``x`` itself."""
        return x


def stepping_to(x0: Tensor, prediction: Prediction, conditioning: Conditioning) -> Prediction:
    """``prediction``, stepped towards ``x0`` at all positions that are not given."""
    kept = conditioning.given[..., None]
    return replace(prediction, x0_step=torch.where(kept, prediction.x0_step, x0))


def extrapolated(
    weak: Prediction, strong: Prediction, scale: float, conditioning: Conditioning
) -> Prediction:
    """``strong``, stepped towards weak + scale (strong - weak) of the two x0: 1 changes nothing."""
    moved = weak.x0_step + scale * (strong.x0_step - weak.x0_step)
    return stepping_to(moved, strong, conditioning)


class _Moved(Wrapped):
    def __init__(self, inner: Denoise, guidance: Guidance) -> None:
        super().__init__(inner)
        self.guidance = guidance

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        prediction = super().__call__(x, level, previous, conditioning)
        return stepping_to(self.guidance.move(prediction, x, level), prediction, conditioning)

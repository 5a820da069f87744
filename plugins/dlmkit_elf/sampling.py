"""How ELF samples: with its own first predictions as guidance, and back towards noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise, Prediction
from dlmkit.core.guidance import Guidance, Guided, extrapolated
from dlmkit.core.network import Conditioning
from dlmkit.core.sampler import BoundDenoise, GaussianSampler, Step, euler, per_row
from dlmkit.core.schedule import Level
from dlmkit_elf import plugin


class SelfConditioning(Guidance):
    """x0_alone + scale (x0 - x0_alone), where x0_alone is said without a previous prediction.

    Two evaluations per step; of a model that feeds nothing back, both are one. ELF trains the
    guided velocity into the network instead, with the scale as an input.
    """

    def __init__(self, config: plugin.Scale, context: BuildContext) -> None:
        self.scale, self.space = config.scale, context.part("space")

    def wrap(self, denoise: Denoise) -> Denoise:
        return _SeeingOrNot(denoise, self)


class _SeeingOrNot(Guided):
    guidance: SelfConditioning

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        seeing = self.inner(x, level, previous, conditioning)
        alone = self.inner(x, level, self.inner.start(x), conditioning)
        scale, space = self.guidance.scale, self.guidance.space
        return extrapolated(alone, seeing, scale, space, conditioning)


class Renoising(GaussianSampler):
    """Noise brings the text's share t down to t (1 - gamma (t' - t)), and Euler's step up to t'.

    t = S / (S + s) at the ratio s, S being the deviation of pure noise. What ends clean takes no
    way back. ELF adds its noise linearly, of which less comes than its time says: here as much.
    """

    def __init__(self, config: plugin.Renoising, context: BuildContext) -> None:
        self.config = config

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        pure, (alpha, _), s = self.config.noise, step.here, step.here.ratio
        ahead = pure / (pure + step.next.ratio) - pure / (pure + s)
        kept = (1.0 - self.config.gamma * ahead).clamp(min=0.05)
        back = torch.where(step.last, s, (s + pure) / kept - pure)
        up = alpha * torch.sqrt((back.square() - s.square()).clamp(min=0.0))
        x = x + per_row(up, x) * step.noise.normal(0, x.shape[1:], x.dtype)
        return super().step(denoise, x, step.starting(Level(alpha, alpha * back)), state)

    def move(self, x: Tensor, x0: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        return euler(x, x0, step.ratio, step.next_ratio), state

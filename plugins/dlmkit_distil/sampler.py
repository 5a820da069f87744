"""Sampling of a consistency model in a few steps (2303.01469, algorithm 1)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dlmkit.core.sampler import GaussianSampler, Step


class MultistepConsistency(GaussianSampler):
    """x' = x0 + s' z: the predicted end of the path, with fresh noise of the next level."""

    def move(self, x: Tensor, x0: Tensor, step: Step, state: Any) -> tuple[Tensor, Any]:
        return x0 + step.next_ratio * step.noise.normal(0, x.shape[1:], x.dtype), state

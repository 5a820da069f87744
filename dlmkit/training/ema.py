"""The moving average of the weights, as a second module that can be validated and sampled."""

from __future__ import annotations

import copy

import torch

from dlmkit.core.objective import Objective


def warmed(decay: float, updates: int) -> float:
    """The decay after ``updates`` updates: young averages forget faster."""
    return min(decay, (1 + updates) / (10 + updates))


class Ema:
    """``objective`` is a copy whose parameters lag behind; its buffers are the current ones.

    It has no state beside that module: the decay follows from the number of updates.
    """

    def __init__(self, objective: Objective, decay: float) -> None:
        self.decay = decay
        self.objective = copy.deepcopy(objective).requires_grad_(False).eval()
        self._pairs = list(zip(self.objective.parameters(), objective.parameters(), strict=True))
        self._buffers = list(zip(self.objective.buffers(), objective.buffers(), strict=True))

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Follow the weights after optimiser step number ``updates`` (from 1)."""
        averages, weights = (list(side) for side in zip(*self._pairs, strict=True))
        torch._foreach_lerp_(averages, weights, 1.0 - warmed(self.decay, updates))
        for average, buffer in self._buffers:
            average.copy_(buffer)

"""The moving average of the weights, as a second module that can be validated and sampled."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dlmkit.core.objective import Objective
from dlmkit.training.parallel import World


def warmed(decay: float, updates: int) -> float:
    """The decay after ``updates`` updates: young averages forget faster."""
    return min(decay, (1 + updates) / (10 + updates))


class Ema:
    """``averages`` lag behind the weights of the same names; there is no state beside them.

    ``objective`` is a copy of the model with averaged parameters and current buffers. In a
    sharded run it is that only inside :meth:`whole`, and only in the first process: ``averages``
    are split as the weights are.
    """

    def __init__(self, objective: Objective, decay: float) -> None:
        self.decay = decay
        self.objective = copy.deepcopy(objective).requires_grad_(False).eval()
        self._followed = objective
        self.averages: dict[str, Tensor] = dict(self.objective.named_parameters())

    def shard(self, world: World) -> None:
        """Split the averages as the weights have just been, and keep one whole copy."""
        self.averages = {n: p.detach().clone() for n, p in self._followed.named_parameters()}
        self.objective.to("cpu" if world.first else "meta")

    @torch.no_grad()
    def update(self, updates: int, world: World) -> None:
        """Follow the weights after optimiser step number ``updates`` (from 1)."""
        averages = [world.local(average) for average in self.averages.values()]
        weights = [world.local(weight) for weight in self._followed.parameters()]
        torch._foreach_lerp_(averages, weights, 1.0 - warmed(self.decay, updates))
        if not world.sharded:
            self.copy_buffers()

    @torch.no_grad()
    def copy_buffers(self) -> None:
        """Give ``objective`` the current buffers."""
        current = dict(self._followed.named_buffers())
        for name, buffer in self.objective.named_buffers():
            buffer.copy_(current[name])

    @contextmanager
    @torch.no_grad()
    def whole(self, world: World) -> Iterator[None]:
        """Around work of the first process with ``objective``. Collective."""
        if not world.sharded:
            yield
            return
        if world.first:
            self.objective.to(world.device)
            self.copy_buffers()
        parameters = dict(self.objective.named_parameters())
        for name, average in self.averages.items():
            gathered = world.full(average)
            if world.first:
                parameters[name].copy_(gathered)
        try:
            yield
        finally:
            if world.first:
                self.objective.to("cpu")

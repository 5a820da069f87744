"""What one forward pass keeps for its backward pass, measured by looking at every saved tensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dlmkit.core.objective import Batch, Draws, Objective
from dlmkit.recipe.schema import TrainConfig
from dlmkit.training.loop import autocast


@dataclass
class Activations:
    """Bytes kept by one pass: in all, by each block, and of the blocks' inputs."""

    total: int = 0
    largest: int = 0
    by_unit: dict[int, int] = field(default_factory=dict)
    inputs: int = 0

    def kept(self, checkpointing: bool) -> int:
        """Bytes at the peak; with activation checkpointing blocks keep their inputs, and one at
        a time is computed again."""
        if not (checkpointing and self.by_unit):
            return self.total
        units = self.by_unit.values()
        return self.total - sum(units) + self.inputs + max(units)


def measure(
    objective: Objective, batch: Batch, draws: Draws, config: TrainConfig, device: torch.device
) -> Activations:
    """One forward pass of ``objective``, which is left as it was."""
    watch = _Watch({t.untyped_storage().data_ptr() for t in _own_tensors(objective)})
    hooks = [
        hook
        for unit in objective.network.shard_units()
        for hook in (
            unit.register_forward_pre_hook(watch.enter),
            unit.register_forward_hook(watch.leave),
        )
    ]
    try:
        with saved_tensors_hooks(watch.pack, lambda tensor: tensor), autocast(config, device):
            objective(batch, draws)
    finally:
        for hook in hooks:
            hook.remove()
    return watch.found


def _own_tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


class _Watch:
    """Sums the storages that autograd saves, each once, and notes the block they were made in."""

    def __init__(self, seen: set[int]) -> None:
        self.seen = seen
        self.alive: list[Tensor] = []  # so that no storage's address is used again
        self.unit: int | None = None
        self.found = Activations()

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.alive.append(tensor.detach())
            size = storage.nbytes()
            self.found.total += size
            self.found.largest = max(self.found.largest, size)
            if self.unit is not None:
                units = self.found.by_unit
                units[self.unit] = units.get(self.unit, 0) + size
        return tensor

    def enter(self, unit: nn.Module, inputs: tuple[Any, ...]) -> None:
        if torch.is_grad_enabled():
            self.unit = id(unit)
            self.found.inputs += inputs[0].untyped_storage().nbytes()

    def leave(self, unit: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.unit = None

"""The memory that a process needs to train: what is exact, and what is certainly too much."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from dlmkit.core.objective import Objective
from dlmkit.core.room import free, refuse, size
from dlmkit.recipe.assemble import Assembly
from dlmkit.recipe.schema import TrainConfig
from dlmkit.training.draws import micro_batches
from dlmkit.training.parallel import World


@dataclass(frozen=True)
class Item:
    """One part of the memory that a process needs: ``bytes``, and ``how`` they come about."""

    what: str
    bytes: int
    how: str


def needed(objective: Objective, processes: World) -> list[Item]:
    """What the first of ``processes`` holds between two steps, beside the program and the text.

    Where weights are sharded it holds the largest part of each. What a pass takes comes on top:
    it depends on the network's own code.
    """
    share = processes.size if processes.sharded else 1
    trained = [p for p in objective.parameters() if p.requires_grad]
    everything, of_trained = _bytes(objective.parameters()), _bytes(trained)
    held, held_trained = _bytes(objective.parameters(), share), _bytes(trained, share)
    by = f" / {share}" if share > 1 else ""
    items = [
        Item("weights", held, f"{size(everything)}{by}"),
        Item("gradients", held_trained, f"{size(of_trained)}{by}"),
        Item("AdamW", 2 * held_trained, f"2 x {size(of_trained)}{by}, its two moments"),
        Item("EMA", held, f"{size(everything)}{by}"),
    ]
    if share > 1 and processes.device.type == "cpu":  # beside an accelerator: the host's memory
        how = "weights, whole, in the first process: what validates and samples"
        items.append(Item("sampled copy", everything, how))
    return items


def parameter_count(module: nn.Module, trained: bool = False) -> int:
    """Numbers among the weights of ``module``; of those that are ``trained``, not what is fixed."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def _bytes(parameters: Iterable[nn.Parameter], share: int = 1) -> int:
    """Of ``parameters``, or of the first of ``share`` parts that FSDP2 cuts each of them into."""
    return sum(torch.atleast_1d(p.detach()).chunk(share)[0].nbytes for p in parameters)


def refuse_too_large(assembly: Assembly, train: TrainConfig, processes: World) -> None:
    """Raise TooLargeError if a run on the CPU would certainly take more memory than is free.

    The weights are there already. Of a pass only a lower bound is known without doing it: each
    block, or with activation checkpointing the largest, keeps the input of its widest linear
    layer for that layer's gradient. Not collective.
    """
    if processes.device.type != "cpu":
        return
    there, (_, *others) = free(), needed(assembly.objective, processes)
    what = "gradients, AdamW's two moments and averages take 4 x the weights"
    refuse(what, sum(item.bytes for item in others), there)
    rows = len(micro_batches(train.batch_size, train.micro_batch_size, processes.size, 0)[0])
    widths = [_widest(unit) for unit in assembly.network.shard_units()]
    wide = max(widths, default=0) if train.activation_checkpointing else sum(widths)
    size = 4 if train.precision == "fp32" else 2
    positions = f"{rows:,} rows x {assembly.config.length:,} positions"
    what = f"the activations of a pass are at least {positions} x {wide:,} x {size} bytes"
    refuse(what, rows * assembly.config.length * wide * size, there)


def _widest(block: nn.Module) -> int:
    linear = (module for module in block.modules() if isinstance(module, nn.Linear))
    return max((layer.in_features for layer in linear if layer.weight.requires_grad), default=0)

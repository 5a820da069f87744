"""Activation checkpointing and compilation, block by block through ``shard_units()``."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dlmkit.core.network import ScoreNetwork
from dlmkit.core.units import compile_units, probe_compile
from dlmkit.recipe.schema import TrainConfig


def prepare_units(network: ScoreNetwork, config: TrainConfig, device: torch.device) -> None:
    """Change how the blocks of ``network`` run, in place; names and weights stay as they are.

    Raises PluginError if the recipe asks for torch.compile and it does not work on ``device``.
    """
    if config.compile:
        probe_compile(device)
    if config.activation_checkpointing:
        for unit in network.shard_units():
            _checkpointed(unit)
    if config.compile:
        compile_units(network)


def _checkpointed(unit: nn.Module) -> None:
    forward = unit.forward

    @functools.wraps(forward)
    def recomputed(*arguments: Any, **options: Any) -> Any:
        return checkpoint(forward, *arguments, use_reentrant=False, **options)

    unit.forward = recomputed

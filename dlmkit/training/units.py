"""Activation checkpointing and compilation, block by block through ``shard_units()``."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dlmkit.core.network import ScoreNetwork
from dlmkit.errors import PluginError
from dlmkit.loading import describe
from dlmkit.recipe.schema import TrainConfig


def prepare_units(network: ScoreNetwork, config: TrainConfig, device: torch.device) -> None:
    """Change how the blocks of ``network`` run, in place; names and weights stay as they are.

    Raises PluginError if the recipe asks for torch.compile and it does not work on ``device``.
    """
    if config.compile:
        probe_compile(device)
    for unit in network.shard_units():
        if config.activation_checkpointing:
            _checkpointed(unit)
        if config.compile:
            unit.compile()


def _checkpointed(unit: nn.Module) -> None:
    forward = unit.forward

    @functools.wraps(forward)
    def recomputed(*arguments: Any) -> Any:
        return checkpoint(forward, *arguments, use_reentrant=False)

    unit.forward = recomputed


def probe_compile(device: torch.device) -> None:
    """Compile a tiny function and call it, forwards and backwards. Raises PluginError."""
    x = torch.linspace(-1.0, 1.0, 64, device=device, requires_grad=True)
    try:
        with torch.enable_grad():
            torch.compile(_tiny, fullgraph=True)(x).sum().backward()
    except Exception as error:
        raise PluginError(
            f"train.compile: torch.compile does not work on {device}: {describe(error)}\n"
            "set train.compile: false, or leave it out of the recipe"
        ) from error


def _tiny(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.gelu(x) * 2.0

"""torch.compile of a network's blocks, through ``shard_units()``; for training and sampling."""

from __future__ import annotations

import torch
from torch import nn

from dlmkit.core.network import ScoreNetwork
from dlmkit.errors import PluginError, describe


def compile_units(network: ScoreNetwork) -> None:
    """Compile the blocks of ``network`` in place; names and weights stay as they are."""
    for unit in network.shard_units():
        unit.compile()


def probe_compile(device: torch.device, key: str = "train.compile") -> None:
    """Compile a tiny function and call it, forwards and backwards.

    Raises PluginError, which names the recipe's ``key`` that asked for it.
    """
    x = torch.linspace(-1.0, 1.0, 64, device=device, requires_grad=True)
    try:
        with torch.enable_grad():
            torch.compile(_tiny, fullgraph=True)(x).sum().backward()
    except Exception as error:
        raise PluginError(
            f"{key}: torch.compile does not work on {device}: {describe(error)}\n"
            f"set {key}: false, or leave it out of the recipe"
        ) from error


def _tiny(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.gelu(x) * 2.0

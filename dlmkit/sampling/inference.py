"""How a model is run while it is sampled from: precision, int8, compilation, CUDA graphs.

All but the last is a function of a network whose weights stay as they are, taken once a run; the
network that trains is left alone. CUDA graphs record the loop's whole turn (see `graphs`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.schedule import Level
from dlmkit.core.units import compile_units, probe_compile
from dlmkit.errors import RecipeError
from dlmkit.sampling.int8 import Int8Linear, probe_int8
from dlmkit.sampling.slots import Width, exact, halves
from dlmkit.types import Embedded, Query


@dataclass(frozen=True)
class Inference:
    """Choices of a run. The sampler's state stays in single precision, the grid in double.

    ``dtype`` is that of the network under autocast and of the vocabulary step; None: that of
    the weights.
    """

    dtype: torch.dtype | None = None
    compile: bool = False
    cuda_graphs: bool = False
    int8: bool = False

    def check(self, network: ScoreNetwork, device: torch.device) -> None:
        """Show that all of it works here. Raises RecipeError, or PluginError with a reason."""
        if self.cuda_graphs and device.type != "cuda":
            raise RecipeError(
                f"sample.cuda_graphs: true, and the device is {device}; CUDA graphs need a GPU "
                "(--device cuda): leave the key out here"
            )
        if self.int8:
            if device.type != "cpu":
                raise RecipeError(
                    f"sample.int8: true, and the device is {device}; int8 layers are for the CPU: "
                    "leave the key out, or set sample.precision: bf16"
                )
            if not network.dense_layers():
                raise RecipeError(
                    f"sample.int8: true, and {type(network).__name__} has no linear layers for it"
                )
            probe_int8()
        if self.compile:
            probe_compile(device, "sample.compile")

    @property
    def width(self) -> Width:
        """How slots shrink at the end: to few shapes where each is compiled or recorded."""
        return halves if self.compile or self.cuda_graphs else exact

    def network(self, network: ScoreNetwork) -> ScoreNetwork:
        """``network`` as it runs in a run in which its weights do not change."""
        run = network
        if self.int8:
            dense = set(network.dense_layers())
            run = replicate(run, lambda m: Int8Linear(m) if m in dense else None)
        if self.dtype is not None:
            run = replicate(run, self._cast)
        if self.compile:
            run = replicate(run, lambda module: None) if run is network else run
            compile_units(run)
        return run if self.dtype is None else Autocast(run, self.dtype)

    def _cast(self, module: nn.Module) -> nn.Module | None:
        """Linear layers in ``dtype``, whose weights autocast would cast at every step."""
        if not isinstance(module, nn.Linear):
            return None
        return copy.deepcopy(module).to(self.dtype)


class Autocast(ScoreNetwork):
    """``network`` under autocast to ``dtype``."""

    def __init__(self, network: ScoreNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = network, dtype

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        with torch.autocast(x.device.type, self.dtype, cache_enabled=False):
            query: Query = self.inner(x, level, conditioning, previous)
        return query

    def shard_units(self) -> Sequence[nn.Module]:
        return self.inner.shard_units()


def replicate(network: ScoreNetwork, swap: Callable[[nn.Module], nn.Module | None]) -> ScoreNetwork:
    """A network of the same weights, its modules exchanged where ``swap`` returns another.

    Only the tree is copied. What was done to single modules of ``network``, such as compiling
    or checkpointing them, is not.
    """
    copied = _replicate(network, swap)
    assert isinstance(copied, ScoreNetwork)
    return copied


def _replicate(module: nn.Module, swap: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    other = swap(module)
    if other is not None:
        return other
    copied = copy.copy(module)
    copied.__dict__.pop("forward", None)
    copied._compiled_call_impl = None
    copied._modules = {
        name: child if child is None else _replicate(child, swap)
        for name, child in module._modules.items()
    }
    return copied

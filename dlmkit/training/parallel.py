"""The processes of a run. The only file that imports torch.distributed."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dlmkit.errors import UsageError


class World(ABC):
    """The processes that train one model: ``rank`` of ``size``, each on its ``device``."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and talks."""
        return self.rank == 0

    @abstractmethod
    def wrap(self, module: nn.Module) -> nn.Module:
        """``module`` with gradients averaged over processes."""

    @abstractmethod
    def accumulating(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Around every backward pass of a step; gradients travel in the ``last`` one."""

    @abstractmethod
    def sum(self, value: Tensor) -> Tensor:
        """The sum of every process's ``value``."""

    @abstractmethod
    def gather(self, rows: Tensor) -> Tensor:
        """All processes' rows, one process after the other. Lengths may differ."""

    @abstractmethod
    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds in any process."""

    @abstractmethod
    def share(self, value: Any) -> list[Any]:
        """Every process's ``value`` (picklable), by rank."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait for every process."""


class Single(World):
    """One process on one device."""

    rank, size = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrap(self, module: nn.Module) -> nn.Module:
        return module

    def accumulating(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        return value

    def gather(self, rows: Tensor) -> Tensor:
        return rows

    def any(self, flag: bool) -> bool:
        return flag

    def share(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        pass


class Replicated(World):
    """A full copy of the model in every process of torchrun (DistributedDataParallel)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def wrap(self, module: nn.Module) -> nn.Module:
        # buffers are updated alike in every process, so nothing needs to be broadcast
        return DistributedDataParallel(module, broadcast_buffers=False)

    def accumulating(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        assert isinstance(wrapped, DistributedDataParallel)
        return nullcontext() if last else wrapped.no_sync()

    def sum(self, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    def gather(self, rows: Tensor) -> Tensor:
        counts = torch.zeros(self.size, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        sizes = self.sum(counts).tolist()
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def any(self, flag: bool) -> bool:
        # on the CPU, so that asking every step does not wait for the accelerator
        return bool(self.sum(torch.tensor([int(flag)])).item())

    def share(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        self.any(False)


def pick_device() -> torch.device:
    """This process's accelerator, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@contextmanager
def world(device: torch.device | None = None) -> Iterator[World]:
    """The processes that torchrun started, or this one alone."""
    device = device or pick_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Single(device)
        return
    if not dist.is_available():
        raise UsageError("this torch is built without torch.distributed: run one process")
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Replicated(device)
    finally:
        dist.destroy_process_group()

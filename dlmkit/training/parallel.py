"""The processes of a run. The only file that imports torch.distributed."""

from __future__ import annotations

import os
import pickle
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dlmkit import devices
from dlmkit.core.objective import Objective
from dlmkit.errors import DlmkitError, UsageError, describe

T = TypeVar("T")
_PATIENCE = timedelta(days=30)  # the first process may tokenise, validate and sample for hours
_POLL = 0.005  # at most so many seconds between looks whether the others have come


class World(ABC):
    """The processes that train one model: ``rank`` of ``size``, each on its ``device``.

    ``sharded`` says that a process holds a part of every weight only. Methods marked collective
    are called by every process, in the same order.
    """

    rank: int
    size: int
    device: torch.device
    layout: str
    sharded = False
    agreed: Exception | None = None
    """The last error that every process has raised."""

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and talks."""
        return self.rank == 0

    @abstractmethod
    def wrap(self, objective: Objective) -> nn.Module:
        """``objective`` with gradients averaged over processes. Collective."""

    @abstractmethod
    def spread(self, module: nn.Module) -> None:
        """Give every process the first one's weights and buffers of ``module``. Collective.

        Before :meth:`wrap`, while every process holds them whole.
        """

    @abstractmethod
    def accumulating(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Around every pass of a step, the ``last`` of which leaves the averaged gradients."""

    @abstractmethod
    def gather(self, rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """Every process's ``rows``, ``counts`` of them by rank. Collective."""

    @abstractmethod
    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds in any process. Collective."""

    @abstractmethod
    def share(self, value: Any) -> list[Any]:
        """Every process's ``value`` (small, picklable), by rank, however long one takes to come.

        Signals are handled while it waits. Collective.
        """

    def local(self, tensor: Tensor) -> Tensor:
        """The part of a weight, its gradient or its average that this process holds."""
        return tensor

    def full(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor whose :meth:`local` parts the processes hold. Collective."""
        return tensor

    def split(self, whole: Tensor, like: Tensor) -> Tensor:
        """``whole``, which every process has, held as ``like`` is where their shapes agree."""
        return whole

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """The 2-norm of all gradients, given by their local parts. Collective."""
        return nn.utils.get_total_norm(gradients)

    def barrier(self) -> None:
        """Wait for every process, however long it takes. Collective."""
        self.share(None)

    def agree(self, error: Exception | None) -> None:
        """Raise in every process if any has an ``error``: its own, or a message about the other's.

        Collective.
        """
        errors = self.share(None if error is None else _told(error))
        failed = [(rank, words) for rank, words in enumerate(errors) if words is not None]
        if failed:
            rank, (code, message) = failed[0]
            self.agreed = error or _FAILURES[code](f"process {rank}: {message}")
            raise self.agreed

    def together(self, call: Callable[[], T]) -> T:
        """``call()``, which is not collective; what it raises in one process all raise."""
        outcome, failed = None, None
        try:
            outcome = call()
        except Exception as error:
            failed = error
        self.agree(failed)
        return outcome  # type: ignore[return-value]

    def lead(self, call: Callable[[], T]) -> T:
        """What ``call`` returns (picklable) or raises in the first process, in all. Collective."""
        outcome = self.together(lambda: call() if self.first else None)
        result: T = self.share(outcome)[0]
        return result

    def in_turns(self, call: Callable[[], T]) -> T:
        """``call()`` in the first process, then in the first of every node, then in the others.

        So that all find what the first has cached. Collective.
        """
        on_node = int(os.environ.get("LOCAL_RANK", "0"))
        mine = 0 if self.first else 1 if on_node == 0 else 2
        outcomes = []
        for turn in range(3):
            outcomes.append(self.together(call if turn == mine else _nothing))
        return outcomes[mine]  # type: ignore[return-value]


def _nothing() -> None:
    """What a process does while it is another's turn."""


_KINDS: list[type[DlmkitError]] = [DlmkitError, *DlmkitError.__subclasses__()]
_FAILURES = {kind.exit_code: kind for kind in _KINDS}


def _told(error: Exception) -> tuple[int, str]:
    """(exit code, message): what the other processes are told of an error."""
    if isinstance(error, DlmkitError):
        return error.exit_code, str(error)
    return DlmkitError.exit_code, describe(error)


class Single(World):
    """One process on one device."""

    rank, size = 0, 1
    layout = "alone"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wrap(self, objective: Objective) -> nn.Module:
        return objective

    def spread(self, module: nn.Module) -> None:
        """There is nobody else."""

    def accumulating(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def gather(self, rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
        return [rows]

    def any(self, flag: bool) -> bool:
        return flag

    def share(self, value: Any) -> list[Any]:
        return [value]


class Replicated(World):
    """A full copy of the model in every process of torchrun (DistributedDataParallel)."""

    layout = "ddp"

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # words between processes travel over the CPU, so that they never wait for an accelerator
        self._words = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def wrap(self, objective: Objective) -> nn.Module:
        with warnings.catch_warnings():  # the option's new name is unknown to older versions
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            # buffers are updated alike in every process, so nothing needs to be broadcast
            return DistributedDataParallel(
                objective, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def accumulating(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        assert isinstance(wrapped, DistributedDataParallel)
        return nullcontext() if last else wrapped.no_sync()

    def gather(self, rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return [part[:count] for part, count in zip(parts, counts, strict=True)]

    def spread(self, module: nn.Module) -> None:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)

    def any(self, flag: bool) -> bool:
        return bool(self._meet(torch.tensor([int(flag)])).item())

    def share(self, value: Any) -> list[Any]:
        content = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        sizes = torch.zeros(self.size, dtype=torch.int64)
        sizes[self.rank] = len(content)
        counts = self._meet(sizes).tolist()
        padded = torch.zeros(max(counts), dtype=torch.uint8)
        padded[: len(content)] = content
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=self._words)
        return [
            pickle.loads(part[:count].numpy().tobytes())
            for part, count in zip(parts, counts, strict=True)
        ]

    def close(self) -> None:
        """Let go of the second group, so that its threads end now.

        One that still held a tensor while the interpreter ends would abort the process: Python
        3.11 unwinds a foreign thread that asks for its lock then, through code that may not throw.
        """
        del self._words

    def _meet(self, value: Tensor) -> Tensor:
        """The sum of every process's CPU tensor, waited for in steps that let signals in."""
        work = dist.all_reduce(value, group=self._words, async_op=True)
        assert work is not None
        pause = _POLL / 128
        while not work.is_completed():
            time.sleep(pause)
            pause = min(2 * pause, _POLL)
        work.wait()
        return value


class Sharded(Replicated):
    """A part of every weight, gradient and moment in each process (FSDP2's ``fully_shard``).

    The network's blocks are gathered one by one while they run, and the rest of the objective
    for the length of a pass. Gradients are reduced after every pass, since what they take whole
    is what sharding is to save. Buffers are not split: every process holds them all.
    """

    layout = "fsdp"
    sharded = True

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.writers = dist.new_group(backend="gloo", timeout=_PATIENCE)
        """Over which a thread that writes a checkpoint talks to those of the other processes."""

    def close(self) -> None:
        super().close()
        del self.writers

    def wrap(self, objective: Objective) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.size,))
        for unit in objective.network.shard_units():
            fully_shard(unit, mesh=mesh)
        fully_shard(objective, mesh=mesh)
        return objective

    def accumulating(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def local(self, tensor: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def full(self, tensor: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def split(self, whole: Tensor, like: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor) or whole.shape != like.shape:
            return whole
        whole = whole.to(self.device)
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        total = super().norm(gradients).square()
        dist.all_reduce(total)
        return total.sqrt()


LAYOUTS: dict[str, type[Replicated]] = {kind.layout: kind for kind in (Replicated, Sharded)}
"""What the recipe's ``train.parallel`` means where there is more than one process."""


@contextmanager
def world(parallel: str = "ddp", device: torch.device | None = None) -> Iterator[World]:
    """The processes that torchrun started, in the layout ``parallel``; or this one alone.

    What all of them raise leaves the first one as it is, and the others as SystemExit.
    """
    device = device or devices.choose()
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Single(device)
        return
    if not dist.is_available():
        raise UsageError("this torch is built without torch.distributed: run one process")
    kind = device.type
    backend = "gloo" if kind == "cpu" else dist.get_default_backend_for_device(device)
    dist.init_process_group("gloo" if kind == "cpu" else f"cpu:gloo,{kind}:{backend}")
    processes = LAYOUTS[parallel](device)
    try:
        yield processes
    except Exception as error:
        if error is processes.agreed and not processes.first:
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        raise
    finally:
        processes.close()
        dist.destroy_process_group()

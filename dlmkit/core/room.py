"""Whether there is memory for what a recipe's sizes ask for, said before it is taken.

Linux promises more memory than there is and kills whoever touches it: an allocation that can
never be used does not fail. So it is compared beforehand with what is free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dlmkit.errors import TooLargeError

_LOOK = 64 << 20
"""Bytes that may be taken between two looks at what is free, which costs a tenth of a ms."""

_FREE, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def free() -> int | None:
    """Bytes of this machine, or of the group that this process may use; None if nobody knows."""
    limits = []
    try:
        entry = re.search(r"MemAvailable:\s*(\d+) kB", _FREE.read_text())
        limits += [1024 * int(entry[1])] if entry else []
        limit, used = ((_GROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        limits += [max(0, int(limit) - int(used))] if limit.strip().isdecimal() else []
    except OSError:
        pass
    return min(limits, default=None)


def size(count: int) -> str:
    """``count`` bytes for people."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:,.1f} {unit}"
    return f"{count / 1024:.1f} KiB"


def refuse(what: str, needed: int, there: int | None) -> None:
    """Raise TooLargeError if ``needed`` bytes for ``what`` are more than are ``there``."""
    if there is not None and needed > there:
        raise TooLargeError(
            f"{what}: {size(needed)} of memory, and {size(there)} are free: take smaller sizes, "
            "or a machine with more"
        )


@contextmanager
def reckoned(what: str) -> Iterator[None]:
    """Refuse, before it is allocated, a new tensor that the machine has no memory for.

    For building models: operations on tensors that are there already are not looked at. Raises
    TooLargeError, naming ``what``, the tensor's sizes and what is free.
    """
    with _Reckoning(what):
        yield


class _Reckoning(TorchDispatchMode):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.since = what, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: nothing is compiled while a model is built, and torch's way of keeping its compiler
        out of a mode imports the compiler."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        shape = args[0] if args and not isinstance(args[0], Tensor) else None
        if isinstance(shape, list | tuple) and all(isinstance(n, int) for n in shape):
            self._look(shape, options)
        return func(*args, **options)

    def _look(self, shape: Sequence[int], options: Mapping[str, Any]) -> None:
        if str(options.get("device")) not in ("None", "cpu"):
            return
        item = (options.get("dtype") or torch.get_default_dtype()).itemsize
        count = item
        for length in shape:
            count *= length
        self.since += count
        if self.since >= _LOOK:
            self.since = 0
            sizes = " x ".join(f"{n:,}" for n in (*shape, item))
            refuse(f"{self.what} takes {sizes} bytes", count, free())


@contextmanager
def without_memory() -> Iterator[None]:
    """Layers that are made here have weights of a shape, on the device ``meta``, and no content.

    Layers take their weights from ``torch.empty``; tables that are computed (rotary frequencies)
    come from elsewhere and are real.
    """
    with _WithoutMemory():
        yield


class _WithoutMemory(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty:
            options["device"] = "meta"
        return func(*args, **options)

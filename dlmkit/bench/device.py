"""The machine: which device, what it is, its matmul peak, and the memory that a run takes."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Timer

from dlmkit.errors import UsageError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def choose(name: str) -> torch.device:
    """The device ``name``. Raises UsageError with the reason if this machine lacks it."""
    if name not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: expected cpu or cuda")
    if name == "cuda" and (reason := no_cuda()):
        raise UsageError(f"--device cuda: {reason}; leave the option out to measure on the CPU")
    return torch.device(name)


def no_cuda() -> str | None:
    """Why nothing can be measured on a CUDA device here; None if it can."""
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"not measured: this torch ({torch.__version__}) is built without CUDA"
    return "not measured: torch finds no CUDA device on this machine"


def describe(device: torch.device) -> dict[str, Any]:
    """The machine, in JSON types: what pytest-benchmark calls ``machine_info``."""
    uname = platform.uname()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "node": "",
        "processor": uname.processor,
        "machine": uname.machine,
        "system": uname.system,
        "release": uname.release,
        "python_implementation": platform.python_implementation(),
        "python_version": platform.python_version(),
        "cpu": {"brand_raw": _cpu(), "count": os.cpu_count()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
        "gpu": gpu,
    }


def _cpu() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor()


def matmul_peak(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> float:
    """FLOP/s of the best of a few square matmuls, timed here and now: what 100 % means."""
    sizes = (4096, 8192) if device.type == "cuda" else (512, 1024)
    best = 0.0
    for size in sizes:
        a, b = torch.ones(2, size, size, device=device, dtype=dtype).unbind()
        timer = Timer("a @ b", globals={"a": a, "b": b}, num_threads=torch.get_num_threads())
        timer.timeit(1)
        seconds = min(timer.timeit(1).median for _ in range(rounds))
        best = max(best, 2.0 * size**3 / seconds)
    return best


@dataclass
class Memory:
    """The most memory in use, in bytes; None where the system does not say."""

    peak: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Memory]:
    """The peak while the block runs: allocated by torch on CUDA, resident (process) on Linux."""
    memory = Memory()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield memory
        torch.cuda.synchronize(device)
        memory.peak = torch.cuda.max_memory_allocated(device)
        return
    known = _reset_resident()
    yield memory
    memory.peak = _resident() if known else None


def _reset_resident() -> bool:
    try:
        _CLEAR.write_text("5")  # proc(5): the peak resident set starts anew
    except OSError:
        return False
    return True


def _resident() -> int | None:
    found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text())
    return int(found[1]) * 1024 if found else None

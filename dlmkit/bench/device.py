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

from dlmkit import devices

_LONG = 0.02
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def describe(device: torch.device) -> dict[str, Any]:
    """The machine, in JSON types: what pytest-benchmark calls ``machine_info``."""
    uname = platform.uname()
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
        "device": devices.label(device),
        "gpu": devices.card(device),
    }


def measured(machine: dict[str, Any]) -> str:
    """What a figure of :func:`describe`'s machine was measured on: the accelerator, or the CPU."""
    name: str = machine["cpu"]["brand_raw"] if machine["device"] == "cpu" else machine["device"]
    return name


def _cpu() -> str:
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor()


def matmul_peak(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> float:
    """FLOP/s of the best of a few square matmuls, timed here and now: what 100 % means."""
    best = 0.0
    for size in (512, 1024, 2048, 4096, 8192):
        a, b = torch.ones(2, size, size, device=device, dtype=dtype).unbind()
        timer = Timer("a @ b", globals={"a": a, "b": b}, num_threads=torch.get_num_threads())
        timer.timeit(1)
        seconds = min(timer.timeit(1).median for _ in range(rounds))
        best = max(best, 2.0 * size**3 / seconds)
        if seconds > _LONG:  # a larger one would say the same, and take eight times as long
            break
    return best


@dataclass
class PeakMemory:
    """The most memory in use, in bytes; None where the system does not say."""

    peak: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """The peak while the block runs: what torch has allocated on an accelerator that counts it, or
    else, on the CPU and Linux, what the process holds.
    """
    memory, known = PeakMemory(), _reset(device)
    yield memory
    if known:
        memory.peak = _resident() if device.type == "cpu" else _allocated(device)


def _reset(device: torch.device) -> bool:
    """Whether the peak can be known, and starts anew."""
    if device.type == "cpu":
        return _reset_resident()
    try:
        torch.accelerator.synchronize(device)
        torch.accelerator.reset_peak_memory_stats(device)
    except RuntimeError:  # an accelerator whose memory torch does not count
        return False
    return True


def _allocated(device: torch.device) -> int:
    torch.accelerator.synchronize(device)
    return int(torch.accelerator.max_memory_allocated(device))


def _reset_resident() -> bool:
    try:
        _CLEAR.write_text("5")  # proc(5): the peak resident set starts anew
    except OSError:
        return False
    return True


def _resident() -> int | None:
    line = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text())
    return int(line[1]) * 1024 if line else None

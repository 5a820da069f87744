"""Cases timed in interleaved rounds inside one process, and what they ran on."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dlmkit import devices
from dlmkit.errors import UsageError
from dlmkit.training.memory import keep_freed

Case = Callable[[], Any]


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""CPU time adds up over threads and leaves out what else the machine does, but not waiting."""


def rounds(
    cases: Mapping[str, Case], count: int, device: torch.device, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of ``count`` rounds of every case, after one round that is not counted.

    Each round runs all cases one after the other, so that what else the machine does meets all
    of them alike; compare minima with minima and medians with medians.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    now = CLOCKS[clock]
    for number in range(count + 1):
        for name, case in cases.items():
            _wait(device)
            start = now()
            case()
            _wait(device)
            if number > 0:
                seconds[name].append(now() - start)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def summary(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Minimum and median of every case, in seconds."""
    return {n: {"min": min(s), "median": statistics.median(s)} for n, s in seconds.items()}


def ratio(seconds: Mapping[str, Mapping[str, float]], above: str, below: str) -> dict[str, float]:
    """How many times as long ``above`` takes as ``below``, by minimum and by median."""
    return {key: seconds[above][key] / seconds[below][key] for key in ("min", "median")}


def square_peak(device: torch.device, dtype: torch.dtype) -> dict[str, Case]:
    """Square matrix products, the best of which stands for the machine's peak."""
    cases: dict[str, Case] = {}
    for size in (512, 1024, 2048):
        a, b, out = torch.randn(3, size, size, device=device).to(dtype)
        cases[f"square {size}"] = lambda a=a, b=b, out=out: torch.mm(a, b, out=out)  # type: ignore[misc]
    return cases


def peak_flops(seconds: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The best rate of the square products, FLOP/s, by minimum and by median."""
    sizes = [(name, int(name.split()[1])) for name in seconds if name.startswith("square")]
    return {
        key: max(2 * n**3 / seconds[name][key] for name, n in sizes) for key in ("min", "median")
    }


def machine(device: torch.device, clock: str) -> dict[str, Any]:
    """What a figure was measured on."""
    name = devices.card(device) or _processor()
    return {
        "device": str(device),
        "name": name,
        "threads": torch.get_num_threads(),
        "clock": clock,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "cpu")


def parser(doc: str) -> argparse.ArgumentParser:
    """The options that every script here has."""
    options = argparse.ArgumentParser(description=doc.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    options.add_argument("--rounds", type=int, help="rounds; default: 20, or 3 with --quick")
    options.add_argument("--threads", type=int, help="CPU threads; default: torch's own")
    options.add_argument("--device", default="cpu", help="auto, cpu, cuda, ...")
    options.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: on a busy machine")
    options.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    return options


def begin(options: argparse.Namespace) -> tuple[torch.device, int]:
    """The device and the number of rounds. Raises SystemExit if there is no such device.

    As in `dlmkit sample`, freed memory is kept; the plain forms gain from that too.
    """
    keep_freed()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        device = devices.choose(options.device)
    except UsageError as error:
        raise SystemExit(f"not measured: {error}") from error
    return device, options.rounds or (3 if options.quick else 20)


def finish(report: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the report as JSON, if asked to."""
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")

"""Seconds: interleaved rounds, so that what slows the machine slows every case alike."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.benchmark import Timer


def interleaved(runs: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Seconds of each of ``runs`` in each round; a round calls all of them in turn.

    torch's own timer is used, which waits for a CUDA device. Warm up before.
    """
    threads = torch.get_num_threads()
    timers = [Timer("run()", globals={"run": run}, num_threads=threads) for run in runs]
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for timer, own in zip(timers, seconds, strict=True):
            own.append(timer.timeit(1).median)
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """The ``stats`` of pytest-benchmark's JSON: quartiles by medians of halves (Tukey)."""
    data = sorted(seconds)
    mean, median = statistics.fmean(data), statistics.median(data)
    deviation = statistics.stdev(data) if len(data) > 1 else 0.0
    q1, q3 = _quartiles(data)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    far = sum(abs(value - mean) > deviation for value in data)
    outside = sum(not low <= value <= high for value in data)
    return {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(data),
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": outside,
        "stddev_outliers": far,
        "outliers": f"{far};{outside}",
        "ld15iqr": data[bisect_left(data, low)],
        "hd15iqr": data[bisect_right(data, high) - 1],
        "ops": 1.0 / mean,
        "total": sum(data),
        "data": list(seconds),
        "iterations": 1,
    }


def _quartiles(data: Sequence[float]) -> tuple[float, float]:
    if len(data) == 1:
        return data[0], data[0]
    half = (len(data) + 1) // 2
    return statistics.median(data[:half]), statistics.median(data[-half:])

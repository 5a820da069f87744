"""Seconds: interleaved rounds, so that what slows the machine slows every case alike."""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.benchmark import timer


def interleaved(
    runs: Sequence[Callable[[], Any]], rounds: int, after: Callable[[], None] = lambda: None
) -> list[list[float]]:
    """Seconds of each of ``runs`` in each round; a round calls all of them in turn, then ``after``.

    By the clock of torch's benchmark utilities, which waits for an accelerator. Warm up before:
    its ``Timer`` would do so twice a round.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, taken in zip(runs, seconds, strict=True):
            begin = timer()
            run()
            taken.append(timer() - begin)
        after()
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """The ``stats`` of pytest-benchmark's JSON: quartiles as there."""
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
    n, rest = divmod(len(data), 4)
    if len(data) == 1:
        return data[0], data[0]
    if rest == 1:
        low, high = (n - 1, 0.25), (3 * n, 0.75)
    elif rest == 3:
        low, high = (n, 0.75), (3 * n + 1, 0.25)
    else:
        half = len(data) // 2
        return statistics.median(data[:half]), statistics.median(data[half:])
    q1, q3 = (share * data[i] + (1.0 - share) * data[i + 1] for i, share in (low, high))
    return q1, q3

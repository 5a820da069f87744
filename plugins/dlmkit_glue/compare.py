"""Figures over seeds, and intervals of a difference between two systems, paired twice over."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlmkit_glue.metrics import Predictions, score
from dlmkit_glue.tasks import Task

LEVEL = 0.95
DRAWS = 200


def summary(task: Task, truth: Predictions, said: Sequence[Predictions]) -> dict[str, Any]:
    """Mean, sample deviation and single values over the seeds; None where one is undefined."""
    scores = [score(task, truth, run) for run in said]
    by_seed = {name: [run[name] for run in scores] for name in task.figures}
    return {
        "metrics": {name: _mean(values) for name, values in by_seed.items()},
        "deviation": {name: _deviation(values) for name, values in by_seed.items()},
        "by_seed": by_seed,
        "seeds": len(said),
    }


def compared(
    task: Task, truth: Predictions, first: Sequence[Predictions], second: Sequence[Predictions]
) -> dict[str, Any]:
    """The mean of ``first`` minus ``second``, seed by seed, and its 95 % intervals.

    ``over_seeds`` is Student's, of the paired differences: would other seeds agree, on these
    validation rows. ``over_rows`` resamples validation rows, the same for both systems and all
    seeds: would other rows agree, for these seeds.
    """
    deltas = _deltas(task, truth, first, second)
    draws: dict[str, list[float]] = {name: [] for name in task.figures}
    for rows in _resampled(truth):
        taken = [{k: v[rows[k]] for k, v in p.items()} for p in (truth, *first, *second)]
        halves = taken[1 : 1 + len(first)], taken[1 + len(first) :]
        for name, values in _deltas(task, taken[0], *halves).items():
            mean = _mean(values)
            draws[name] += [] if mean is None else [mean]
    return {
        "mean": {name: _mean(values) for name, values in deltas.items()},
        "over_seeds": {name: _student(values) for name, values in deltas.items()},
        "over_rows": {name: _percentiles(values) for name, values in draws.items()},
        "level": LEVEL,
    }


def _deltas(
    task: Task, truth: Predictions, first: Sequence[Predictions], second: Sequence[Predictions]
) -> dict[str, list[float | None]]:
    pairs = [
        (score(task, truth, a), score(task, truth, b)) for a, b in zip(first, second, strict=True)
    ]
    return {name: [_minus(a[name], b[name]) for a, b in pairs] for name in task.figures}


def _resampled(truth: Predictions) -> list[dict[str, NDArray[np.int64]]]:
    generator = np.random.default_rng(0)
    return [
        {split: generator.integers(len(part), size=len(part)) for split, part in truth.items()}
        for _ in range(DRAWS)
    ]


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _deviation(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) == len(values) > 1 else None


def _student(values: Sequence[float | None]) -> list[float] | None:
    from scipy.stats import t

    mean, deviation = _mean(values), _deviation(values)
    if mean is None or deviation is None:
        return None
    half = float(t.ppf(0.5 + LEVEL / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return [mean - half, mean + half]


def _percentiles(draws: Sequence[float]) -> list[float] | None:
    if len(draws) < DRAWS:
        return None
    tail = 50.0 * (1.0 - LEVEL)
    return [float(value) for value in np.percentile(draws, [tail, 100.0 - tail])]

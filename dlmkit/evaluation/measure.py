"""Texts measured: every metric's numbers with intervals, by bootstrap over texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dlmkit.core.data import Data
from dlmkit.core.metric import Measured, Metric
from dlmkit.errors import DataError
from dlmkit.evaluation.intervals import percentile, resamplings
from dlmkit.plugin import Part

Number = dict[str, float | None]

METHOD = "percentiles of bootstrap draws of texts, moved so that their mean is the value"
"""A text drawn twice adds nothing new, which shifts what counts distinct things: hence the move."""


@dataclass(frozen=True)
class Intervals:
    """How intervals are made: ``draws`` resamplings keyed by ``seed``, two-sided ``level``."""

    draws: int = 200
    seed: int = 0
    level: float = 0.95

    def pinned(self) -> dict[str, Any]:
        """As JSON types."""
        return {"method": METHOD, "draws": self.draws, "seed": self.seed, "level": self.level}


@dataclass(frozen=True)
class Gauge:
    """A fitted metric; ``label`` is its name, numbered where it is asked for several times."""

    label: str
    part: Part
    metric: Metric


def gauges(build: Callable[[str, Part], Any], parts: Sequence[Part], data: Data) -> list[Gauge]:
    """The metrics of ``parts``, fitted to ``data``. Raises what building and fitting raise."""
    found: list[Gauge] = []
    for part in parts:
        metric: Metric = build("metric", part)
        metric.fit(data)
        times = sum(gauge.part.use == part.use for gauge in found)
        found.append(Gauge(part.use if not times else f"{part.use} ({times + 1})", part, metric))
    return found


def pinned(gauge: Gauge) -> dict[str, Any]:
    """The metric's options and what else moves its numbers."""
    return {**gauge.part.model_dump(mode="json", by_alias=True), **gauge.metric.pinned()}


def measure(
    gauges: Sequence[Gauge],
    texts: Sequence[str],
    ids: Sequence[Sequence[int]] | None,
    intervals: Intervals,
) -> dict[str, dict[str, Number]]:
    """The numbers of every metric. Raises DataError if there is no text to measure."""
    if not any(texts):
        what = "there are no texts" if not texts else f"all {len(texts)} texts are empty"
        raise DataError(f"{what}: nothing can be measured")
    return {g.label: _numbers(g.metric.evaluate(texts, ids), len(texts), intervals) for g in gauges}


def _numbers(found: Measured, count: int, intervals: Intervals) -> dict[str, Number]:
    drawn: list[Mapping[str, float]] = []
    if found.again is not None:
        for chosen in resamplings(count, intervals.draws, intervals.seed):
            drawn.append(found.again(chosen.tolist()))
    return {
        name: number(value, [draw[name] for draw in drawn if name in draw], intervals)
        if not name.startswith("human_")
        else number(value, [], intervals)
        for name, value in found.numbers.items()
    }


def number(value: float, draws: Sequence[float], intervals: Intervals) -> Number:
    """A value with its interval and the draws' deviation; null where they are not known."""
    if not math.isfinite(value):
        return {"value": None, "low": None, "high": None, "error": None}
    spread = torch.tensor(draws, dtype=torch.float64)
    if len(spread) < 2 or len(spread) < intervals.draws // 2 or not bool(spread.isfinite().all()):
        return {"value": value, "low": None, "high": None, "error": None}
    ends = percentile(spread - spread.mean(), intervals.level)
    low, high = value + ends.low, value + ends.high
    return {"value": value, "low": low, "high": high, "error": float(spread.std())}

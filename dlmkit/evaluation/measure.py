"""Texts measured: every metric's numbers with intervals, by leaving out parts of the texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dlmkit.core.data import Data
from dlmkit.core.metric import Measured, Metric
from dlmkit.errors import DataError
from dlmkit.exact.intervals import jackknife, left_out
from dlmkit.plugin import Part

Number = dict[str, float | None]

METHOD = "jackknife: each part of the texts left out once; Student's t, inside what a number can be"


@dataclass(frozen=True)
class Intervals:
    """How intervals are made: of ``parts`` parts of the texts at most, two-sided ``level``."""

    parts: int = 200
    level: float = 0.95

    def pinned(self) -> dict[str, Any]:
        """As JSON types."""
        return {"method": METHOD, "parts": self.parts, "level": self.level}


@dataclass(frozen=True)
class Gauge:
    """A fitted metric; ``label`` is its name, numbered where it is asked for several times."""

    label: str
    part: Part
    metric: Metric


@dataclass(frozen=True)
class Left:
    """Numbers of ``count`` texts (or rows) with each part left out, by name."""

    count: int
    numbers: Mapping[str, Sequence[float]]


class Results(NamedTuple):
    """Of each metric its numbers with intervals, and the same numbers with parts left out."""

    numbers: dict[str, dict[str, Number]]
    left_out: dict[str, Left]


def gauges(build: Callable[[str, Part], Any], parts: Sequence[Part], data: Data) -> list[Gauge]:
    """The metrics of ``parts``, fitted to ``data``. Raises what building and fitting raise."""
    named: list[Gauge] = []
    for part in parts:
        metric: Metric = build("metric", part)
        metric.fit(data)
        times = sum(gauge.part.use == part.use for gauge in named)
        named.append(Gauge(part.use if not times else f"{part.use} ({times + 1})", part, metric))
    return named


def pinned(gauge: Gauge) -> dict[str, Any]:
    """The metric's options and what else moves its numbers."""
    return {**gauge.part.model_dump(mode="json", by_alias=True), **gauge.metric.pinned()}


def measure(
    gauges: Sequence[Gauge],
    texts: Sequence[str],
    ids: Sequence[Sequence[int]] | None,
    intervals: Intervals,
) -> Results:
    """The numbers of every metric. Raises DataError if there is no text to measure."""
    if not any(texts):
        what = "there are no texts" if not texts else f"all {len(texts)} texts are empty"
        raise DataError(f"{what}: nothing can be measured")
    results = Results({}, {})
    for gauge in gauges:
        measured = gauge.metric.evaluate(texts, ids)
        left = without(measured, len(texts), intervals)
        results.left_out[gauge.label] = left
        results.numbers[gauge.label] = {
            name: number(value, left.numbers.get(name, ()), left.count, intervals,
                         gauge.metric.bounds(name))
            for name, value in measured.numbers.items()
        }  # fmt: skip
    return results


def without(measured: Measured, count: int, intervals: Intervals) -> Left:
    """The numbers with each part left out; those alone that all of these texts have."""
    if measured.again is None:
        return Left(count, {})
    drawn = [measured.again(kept.tolist()) for kept in left_out(count, intervals.parts)]
    names = [name for name in measured.numbers if not name.startswith("human_")]
    return Left(count, {n: [d[n] for d in drawn] for n in names if all(n in d for d in drawn)})


def number(
    value: float,
    left: Sequence[float],
    count: int,
    intervals: Intervals,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Number:
    """A value of ``count`` texts with its interval, inside ``bounds``, and its standard error.

    ``left`` is the same with each part left out. What is not known is null: an interval where the
    parts say nothing, because there are none, one is not finite, or all are the value itself.
    """
    if not math.isfinite(value):
        return {"value": None, "low": None, "high": None, "error": None}
    if not all(map(math.isfinite, left)) or all(other == value for other in left):
        return {"value": value, "low": None, "high": None, "error": None}
    error, (low, high) = jackknife(value, left, count, intervals.level)
    low, high = (min(max(end, bounds[0]), bounds[1]) for end in (low, high))
    return {"value": value, "low": low, "high": high, "error": error}

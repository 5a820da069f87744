"""Quality against entropy as one setting of the sampler moves: no single point says enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure

from dlmkit.errors import UsageError
from dlmkit.evaluation.record import FRONTIER, Record
from dlmkit.report import look, panel, reach, real

QUALITY = ("nll_per_token", "nll_per_character", "nll")
ENTROPY = ("entropy_pooled", "entropy_1", "entropy", "entropy_4")
"""The numbers that may stand on an axis, the first that was measured does."""

Name = tuple[str, str]


@dataclass(frozen=True)
class Frontier:
    """Records over the ``values`` of the setting ``over``."""

    over: str
    values: Sequence[float]
    records: Sequence[Record]
    quality: Name
    entropy: Name

    def content(self) -> dict[str, Any]:
        """As JSON types, sealed by a hash."""
        points = [
            {"value": value, "record": record.content()}
            for value, record in zip(self.values, self.records, strict=True)
        ]
        axes = {"quality": list(self.quality), "entropy": list(self.entropy)}
        return FRONTIER.sealed({"over": self.over, **axes, "points": points})

    def points(self) -> Iterator[tuple[float, Mapping[str, Any], Mapping[str, Any]]]:
        """(value, its entropy, its quality)."""
        for value, record in zip(self.values, self.records, strict=True):
            yield value, _number(record, self.entropy), _number(record, self.quality)


def axes(record: Record, quality: str | None, entropy: str | None) -> tuple[Name, Name]:
    """The numbers to draw: ``metric.name``, or the first of the usual ones that was measured.

    Raises UsageError if there is none, saying what there is.
    """
    return (
        _pick(record, "--quality", quality, QUALITY),
        _pick(record, "--entropy", entropy, ENTROPY),
    )


def _pick(record: Record, option: str, asked: str | None, usual: Sequence[str]) -> Name:
    there = [(metric, name) for metric, numbers in record.results.items() for name in numbers]
    if asked is not None:
        matches = [pair for pair in there if asked in (".".join(pair), pair[1])]
    else:
        matches = [pair for name in usual for pair in there if pair[1] == name]
    if not matches:
        listed = ", ".join(".".join(pair) for pair in there if not pair[1].startswith("human_"))
        raise UsageError(
            f"{option}: {asked or 'none of ' + ', '.join(usual)} was not measured; there are "
            f"{listed}; for another number give one more --metric"
        )
    return matches[0]


def _number(record: Record, name: Name) -> Mapping[str, Any]:
    return record.results[name[0]][name[1]]


def crossing(points: Sequence[tuple[float, float]], at: float) -> float | None:
    """Where the line through ``points`` (entropy, quality), in their order, first has the entropy
    ``at``: its quality there, between two points linearly. None if it does not."""
    for (x, y), (next_x, next_y) in pairwise(points):
        if min(x, next_x) <= at <= max(x, next_x):
            share = (at - x) / (next_x - x) if next_x != x else 0.5
            return y + share * (next_y - y)
    return None


def plot(frontier: Frontier) -> Figure:
    """The curve, one point per value with its intervals, and human text where it was measured."""
    figure, axes = panel((7.0, 5.0))
    values, *numbers = zip(*frontier.points(), strict=True)
    x, y = ([number["value"] for number in axis] for axis in numbers)
    bars: dict[str, Any] = {
        "xerr": reach(numbers[0]),
        "yerr": reach(numbers[1]),
        "capsize": 2,
        "elinewidth": 0.9,
    }
    axes.errorbar(x, y, **bars, **look(0))
    for value, place in zip(values, zip(x, y, strict=True), strict=True):
        axes.annotate(f"{value:g}", place, (6, 6), textcoords="offset points", fontsize=9)
    results, names = frontier.records[0].results, (frontier.entropy, frontier.quality)
    human: list[Any] = [results[metric].get(f"human_{name}") for metric, name in names]
    if all(human):
        real(axes, human[0]["value"], human[1]["value"], "human text")
        axes.legend(frameon=False)
    axes.set(
        xlabel=f"{frontier.entropy[1]}, nats ({frontier.entropy[0]})",
        ylabel=f"{frontier.quality[1]}, nats ({frontier.quality[0]}): lower is likelier",
        title=f"Quality against entropy over {frontier.over}",
    )
    return figure

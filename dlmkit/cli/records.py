"""Evaluation records, frontiers and comparisons as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlmkit.cli.output import columns

if TYPE_CHECKING:
    from dlmkit.evaluation.frontier import Frontier
    from dlmkit.evaluation.record import NumberChange, Record


def table(record: Record) -> str:
    """A number per line, beside its human value."""
    rows = [("metric", "number", "value", "95 % interval", "human")]
    for metric, numbers in record.results.items():
        for name, number in numbers.items():
            if not name.startswith("human_"):
                human = numbers.get(f"human_{name}", {}).get("value")
                between = _between(number["low"], number["high"])
                rows.append((metric, name, _word(number["value"]), between, _word(human)))
    return columns(rows)


def curve(frontier: Frontier) -> str:
    """A value of the setting a line."""
    head = (frontier.over, ".".join(frontier.entropy), "", ".".join(frontier.quality), "")
    rows = [
        (
            f"{value:g}",
            _word(x["value"]),
            _between(x["low"], x["high"]),
            _word(y["value"]),
            _between(y["low"], y["high"]),
        )
        for value, x, y in frontier.points()
    ]
    return columns([head, *rows])


def changes(differences: Sequence[NumberChange]) -> str:
    """A changed number per line."""
    rows = [("metric", "number", "A", "B", "B - A, 95 %", "")]
    for change in differences:
        between = _between(change.low, change.high)
        mark = "differs" if change.differs else ""
        values = (_word(change.before), _word(change.after))
        rows.append((change.metric, change.name, *values, between, mark))
    return columns(rows)


def _word(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"

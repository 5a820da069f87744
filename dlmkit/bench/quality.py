"""What texts are worth: the recipe's metrics and the general ones, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dlmkit.core.metric import Metric
from dlmkit.errors import NoTextError
from dlmkit.model import Model
from dlmkit.plugin import Part

GENERAL = (
    Part(use="text:ngram-judge", options={"unit": "tokens", "order": 4}),
    Part(use="text:distinct", options={"unit": "tokens", "orders": [1, 2, 4]}),
    Part(use="text:ngram-distance", options={"unit": "tokens", "orders": [1, 2]}),
)
"""Measured of every model: over its own tokens, so that any text has enough n-grams."""

HEADLINES: Mapping[str, tuple[str, ...]] = {
    "nll": ("nll", "nll_per_token"),
    "entropy": ("entropy_4",),
    "distinct": ("distinct_4",),
    "ngram_tv": ("ngram_tv_2",),
}
"""A column's name, and the numbers that may stand in it: the first that was measured does.

``nll`` is the exact likelihood where the text's language is known, else the n-gram judge's."""


@dataclass(frozen=True)
class Quality:
    """Metrics fitted to a model's data."""

    metrics: Sequence[Metric]

    @staticmethod
    def of(model: Model, say: Callable[[str], object]) -> Quality:
        """The recipe's metrics, and then :data:`GENERAL`; none, and ``say`` why, of a model that
        came without text."""
        metrics = [
            model.assembly.build("metric", part) for part in (*model.config.metric, *GENERAL)
        ]
        try:
            for metric in metrics:
                metric.fit(model.data)
        except NoTextError as error:
            say(f"quality is not measured: {error}")
            return Quality(())
        return Quality(metrics)

    def measure(self, texts: Sequence[str]) -> dict[str, float]:
        """Every number of every metric under its own name; the first metric to name one wins."""
        numbers: dict[str, float] = {}
        for metric in self.metrics:
            numbers = {**metric.measure(texts), **numbers}
        return numbers


def headline(quality: Mapping[str, float]) -> dict[str, float]:
    """The columns of :data:`HEADLINES` that ``quality`` can fill."""
    columns = {}
    for column, names in HEADLINES.items():
        name = next((name for name in names if name in quality), None)
        if name is not None:
            columns[column] = quality[name]
    return columns

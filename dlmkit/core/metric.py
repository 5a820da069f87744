"""Metrics of generated text."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlmkit.core.data import Data

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """The numbers of texts. ``again`` measures any selection of these texts, given by index.

    It is None where measuring a part of the texts does not show how uncertain the numbers are.
    """

    numbers: Numbers
    again: Callable[[Sequence[int]], Numbers] | None


class Metric(ABC):
    """One or more numbers about texts."""

    @abstractmethod
    def fit(self, data: Data) -> None:
        """Learn what is needed of the training text; called once, before any measurement."""

    @abstractmethod
    def measure(self, texts: Sequence[str]) -> Numbers:
        """The numbers of ``texts``, each under its own name with its unit in the docstring."""

    def evaluate(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None
    ) -> Measured:
        """:meth:`measure`, and the same of selections: override where work can be shared.

        ``ids`` are the tokens that a model wrote the texts in; None: they are not known.
        """
        return Measured(
            self.measure(texts), lambda chosen: self.measure([texts[i] for i in chosen])
        )

    def alone(self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None) -> Measured:
        """:meth:`evaluate` without ``human_*``, the numbers of real text: override where they
        cost something."""
        measured = self.evaluate(texts, ids)
        numbers = {k: v for k, v in measured.numbers.items() if not k.startswith("human_")}
        return Measured(numbers, measured.again)

    def bounds(self, name: str) -> tuple[float, float]:
        """The least and the most that the number ``name`` can be: its interval stays inside."""
        return -math.inf, math.inf

    def pinned(self) -> Mapping[str, Any]:
        """What moves the numbers beside options and data, as JSON types: a judge's weights.

        Known once the metric is fitted.
        """
        return {}

"""Metrics of generated text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from dlmkit.core.data import Data


class Metric(ABC):
    """One or more numbers about texts."""

    @abstractmethod
    def fit(self, data: Data) -> None:
        """Learn what is needed of the training text; called once, before any measurement."""

    @abstractmethod
    def measure(self, texts: Sequence[str]) -> Mapping[str, float]:
        """The numbers of ``texts``, each under its own name with its unit in the docstring."""

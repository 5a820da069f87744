"""Trackers: consumers of a training run's records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Tracker(ABC):
    """Receives every record. What it raises is reported once and never stops the run."""

    @abstractmethod
    def open(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        """The run begins or resumes; ``recipe`` is the resolved recipe."""

    @abstractmethod
    def log(self, record: Mapping[str, Any]) -> None:
        """One record: its ``kind`` (train, validation, sample, metric), ``step``, and the rest."""

    @abstractmethod
    def close(self) -> None:
        """The run ends."""

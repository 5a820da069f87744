"""Data: text, its tokenizer, and batches of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from dlmkit.core.objective import Batch
from dlmkit.core.tokenizer import Tokenizer


class Stream(ABC):
    """The training batches of one run. Row ``slot`` of step ``step`` is the same on every rank."""

    @abstractmethod
    def read(self, step: int, slots: Tensor) -> Batch:
        """The rows ``slots`` (int64) of the global batch of ``step`` (from 0)."""

    @abstractmethod
    def state(self) -> Mapping[str, Any]:
        """What :meth:`restore` needs to go on exactly here, as JSON; may be empty."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""


class Data(ABC):
    """A text source, tokenised and cut to the recipe's length."""

    tokenizer: Tokenizer

    @abstractmethod
    def stream(self, seed: int, batch_size: int) -> Stream:
        """Training batches of ``batch_size`` rows, in an order that ``seed`` fixes."""

    @abstractmethod
    def validation(self, count: int) -> Batch:
        """``count`` rows (or all, if fewer) of held-out text, always the same."""

    @abstractmethod
    def texts(self, split: str) -> Iterator[str]:
        """The documents of ``split`` (train or validation) as they are tokenised, for metrics."""

"""Data: text, its tokenizer, and batches of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dlmkit.core.objective import Batch
from dlmkit.core.tokenizer import Tokenizer


class Stream(ABC):
    """The training batches of one run.

    Row ``slot`` of step ``step`` is the same on every rank and for any number of ranks, whichever
    slots the others ask for.
    """

    @abstractmethod
    def read(self, step: int, slots: Tensor) -> Batch:
        """The rows ``slots`` (int64) of the global batch of ``step`` (from 0).

        Steps are asked for in ascending order. Raises DataError if text cannot be read.
        """

    @abstractmethod
    def state(self) -> Mapping[str, Any]:
        """Where the rows of the last step that was read end, as JSON; may be empty.

        A process may know its own slots only. Keys that two processes both have hold the same
        value, and :meth:`restore` takes the union over all processes.
        """

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where ``state``, the union over all processes, was taken."""


def united(states: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The union of every process's :meth:`Stream.state`."""
    return {key: value for state in states for key, value in state.items()}


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

    def excerpt(self, tokens: int, rows: int = 512) -> Iterator[Batch]:
        """Training rows for counting, ``rows`` at a time, until they hold ``tokens`` tokens.

        Always the same ones, whatever a run's seed; a shorter text is read again. Training's own
        stream stays where it is. Raises DataError if text cannot be read.
        """
        stream, seen, step = self.stream(0, rows), 0, 0
        while seen < tokens:
            batch = stream.read(step, torch.arange(rows))
            yield batch
            seen, step = seen + int(batch.attend.sum()), step + 1

    def describe(self) -> str:
        """What a run's record says of this data: where it came from, how it is read."""
        return type(self).__name__

"""What metrics of cut texts share: their numbers, beside those of as much validation text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.metric import Measured, Metric, Numbers
from dlmkit_metrics.configs import Units
from dlmkit_text.metrics import held_out
from dlmkit_text.symbols import cutter

Options = TypeVar("Options", bound=Units)
Table = TypeVar("Table")


class CutMetric(Metric, Generic[Options, Table]):
    """Texts become a table once, and every selection of them is measured on that."""

    def __init__(self, config: Options, context: BuildContext) -> None:
        self.config = config

    def fit(self, data: Data) -> None:
        """Take the tokenizer and the validation text of ``data``."""
        self.data = data
        self.cut = cutter(self.config.unit, data.tokenizer)

    def measure(self, texts: Sequence[str]) -> Numbers:
        return self.evaluate(texts).numbers

    def evaluate(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None
    ) -> Measured:
        """:meth:`numbers` of all texts, and ``human_*``, the same of as much validation text."""
        own, human = self.table(texts), self.table(held_out(self.data, texts))
        everything = range(len(texts))
        beside = {f"human_{key}": value for key, value in self.numbers(human, everything).items()}
        return Measured(
            {**self.numbers(own, everything), **beside}, lambda chosen: self.numbers(own, chosen)
        )

    @abstractmethod
    def table(self, texts: Sequence[str]) -> Table:
        """What has to be known of ``texts``, cut."""

    @abstractmethod
    def numbers(self, table: Table, chosen: Sequence[int]) -> dict[str, float]:
        """The numbers of the ``chosen`` texts of a table, by index; an index may repeat."""

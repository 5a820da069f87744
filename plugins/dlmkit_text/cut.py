"""What metrics of cut texts share: their numbers, beside those of as much real text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.metric import Measured, Metric, Numbers
from dlmkit_text.pieces import SEPARATOR
from dlmkit_text.symbols import Unit, cutter


class Cut(Protocol):
    """Options that say what texts are cut into."""

    @property
    def unit(self) -> Unit:
        """Of n-grams."""


Options = TypeVar("Options", bound=Cut)
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
        """:meth:`numbers` of all texts, and ``human_*``, the same of as much real text."""
        table = self.table(texts)
        beside = {f"human_{key}": value for key, value in self.human(texts, table).items()}
        measured = self._measured(table, texts)
        return Measured({**measured.numbers, **beside}, measured.again)

    def alone(self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None) -> Measured:
        return self._measured(self.table(texts), texts)

    def _measured(self, table: Table, texts: Sequence[str]) -> Measured:
        return Measured(
            self.numbers(table, range(len(texts))), lambda chosen: self.numbers(table, chosen)
        )

    def score(self, texts: Sequence[str]) -> dict[str, float]:
        """The numbers of ``texts`` alone."""
        return self.numbers(self.table(texts), range(len(texts)))

    def human(self, texts: Sequence[str], table: Table) -> dict[str, float]:
        """The numbers of as much validation text as ``texts``, whose table is ``table``."""
        return self.score(held_out(self.data, texts))

    @abstractmethod
    def table(self, texts: Sequence[str]) -> Table:
        """What has to be known of ``texts``, cut."""

    @abstractmethod
    def numbers(self, table: Table, chosen: Sequence[int]) -> dict[str, float]:
        """The numbers of the ``chosen`` texts of a table, by index."""


def held_out(data: Data, texts: Sequence[str]) -> list[str]:
    """Validation text in as many stretches as ``texts``, each as long in characters."""
    return stretches(data.texts("validation"), texts)


def stretches(documents: Iterable[str], texts: Sequence[str]) -> list[str]:
    """``documents`` in as many stretches as ``texts``, each as long in characters.

    They are spread evenly and begin anywhere, as the rows of packed text do.
    """
    whole = SEPARATOR.join(documents)
    starts = [(len(whole) - len(text)) * i // max(len(texts), 1) for i, text in enumerate(texts)]
    return [whole[max(start, 0) :][: len(text)] for start, text in zip(starts, texts, strict=True)]

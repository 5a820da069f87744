"""The data components: a source of documents, packed into rows of the recipe's length."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.objective import Batch
from dlmkit.errors import DataError
from dlmkit_text import sources, vocabulary
from dlmkit_text.codec import Codec, Ids, encoded
from dlmkit_text.configs import C4, Dataset, KingJames, Reviews, ShardedSource, Source, TextFiles
from dlmkit_text.hub import HubShards
from dlmkit_text.layout import Layout
from dlmkit_text.prepared import PreparedStream, Table, tables
from dlmkit_text.shards import Listed, TextShards, hold_out, json_shards
from dlmkit_text.stream import Deal, LaneStream

SPLITS = ("train", "validation")
_TEXTS = 20_000
_HELD_OUT = 10_000
"""Held-out documents that are prepared, at most."""


class Sourced(Data):
    """Text in shards, rows of which are packed or padded. The base of two ways to read it."""

    def __init__(
        self, train: TextShards, validation: TextShards, options: Source, context: BuildContext
    ) -> None:
        self.train, self.held_out = train, validation
        self.layout = Layout(context.length, options.rows == "padded", options.long == "split")
        self.tokenizer = vocabulary.obtain(
            options.tokenizer, train.all, train.identity, train.name, context.folder
        )

    def texts(self, split: str) -> Iterator[str]:
        """The first 20,000 documents of ``split``, as they read after decoding."""
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}; there are {list(SPLITS)}")
        documents = itertools.islice(self._documents(split), _TEXTS)
        return (self.tokenizer.decode(ids[:-1].tolist()) for ids in documents)

    @abstractmethod
    def _documents(self, split: str) -> Iterator[Ids]:
        """The ids of the documents of ``split``, what ends each included."""

    def _too_few(self, split: str, rows: int) -> DataError:
        return DataError(
            f"{self.train.name}: the {split} split has text for {rows} rows of "
            f"{self.layout.length} tokens; give more text, lower length"
            + (", or raise data.with.validation" if split == "validation" else "")
        )


class Prepared(Sourced):
    """Tokenised once to disk, when a row is first asked for. Validation rows are spread evenly."""

    def __init__(
        self,
        train: TextShards,
        validation: TextShards,
        options: Source,
        context: BuildContext,
        documents: int | None = None,
    ) -> None:
        super().__init__(train, validation, options, context)
        self.documents = documents

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        """The rows of both splits. Raises DataError if one has none."""
        splits = {"train": (self.train, self.documents), "validation": (self.held_out, _HELD_OUT)}
        made = tables(splits, self.tokenizer, self.layout)
        for split, rows in (
            ("train", made["train"].count),
            ("validation", made["validation"].fixed),
        ):
            if not rows:
                raise self._too_few(split, rows)
        return made

    def stream(self, seed: int, batch_size: int) -> PreparedStream:
        return PreparedStream(self.tables["train"], seed, batch_size)

    def validation(self, count: int) -> Batch:
        table = self.tables["validation"]
        count = min(count, table.fixed)
        return table.read(np.arange(count, dtype=np.int64) * table.fixed // count, 0.0)

    def _documents(self, split: str) -> Iterator[Ids]:
        return self.tables[split].documents()

    def describe(self) -> str:
        table = self.tables["train"]
        return f"{self.train.name}: {len(table.ids):,} tokens, {self.layout}; resumes exactly"


class Streamed(Sourced):
    """Tokenised while training reads it. Validation rows are the first of the held-out text."""

    def __init__(
        self,
        train: TextShards,
        validation: TextShards,
        options: ShardedSource,
        context: BuildContext,
    ) -> None:
        super().__init__(train, validation, options, context)
        self.options = options

    def stream(self, seed: int, batch_size: int) -> LaneStream:
        lanes, shuffle = min(self.options.lanes, batch_size), self.options.shuffle
        deal = Deal(self.train, Codec(self.tokenizer), self.layout, seed, lanes, shuffle)
        return LaneStream(deal, batch_size, self.tokenizer.pad_id)

    def validation(self, count: int) -> Batch:
        rows = itertools.islice(self.layout.rows(self._documents("validation")), count)
        if not (taken := list(rows)):
            raise self._too_few("validation", 0)
        return self.layout.batch(taken, self.tokenizer.pad_id)

    def _documents(self, split: str) -> Iterator[Ids]:
        shards = {"train": self.train, "validation": self.held_out}[split]
        return encoded(Codec(self.tokenizer), shards.all())

    def describe(self) -> str:
        return (
            f"{self.train.name}: streamed in {self.options.lanes} lanes, shuffled by shards and "
            f"blocks of {self.options.shuffle} documents, {self.layout} rows; resumes exactly"
        )


def kjv(config: KingJames, context: BuildContext) -> Data:
    """The King James Bible."""
    return _listed(sources.king_james(), config, context, "the King James Bible")


def reviews(config: Reviews, context: BuildContext) -> Data:
    """Film reviews."""
    return _listed(sources.reviews(), config, context, "the film reviews")


def text(config: TextFiles, context: BuildContext) -> Data:
    """Local files."""
    documents = sources.text_files(config.paths, config.document, config.encoding)
    return _listed(documents, config, context, ", ".join(map(str, config.paths)))


def c4(config: C4, context: BuildContext) -> Data:
    """C4, of the hub or of a folder."""
    train: TextShards
    held_out: TextShards | None
    if config.path is None:
        train, held_out = (
            HubShards("allenai/c4", config.config, split, "text", config.revision)
            for split in ("train", "validation")
        )
    else:
        train, held_out = json_shards(config.path)
    return _sharded(train, held_out, config, context)


def hf(config: Dataset, context: BuildContext) -> Data:
    """A dataset that the library `datasets` reads."""
    train, held_out = (
        split and HubShards(config.path, config.config, split, config.column, config.revision)
        for split in (config.split, config.validation_split)
    )
    assert train
    return _sharded(train, held_out or None, config, context)


def _listed(
    documents: Sequence[str], options: Source, context: BuildContext, name: str
) -> Prepared:
    train, held_out = (Listed(part, name) for part in sources.split(documents, options.validation))
    return Prepared(train, held_out, options, context)


def _sharded(
    train: TextShards, held_out: TextShards | None, options: ShardedSource, context: BuildContext
) -> Prepared | Streamed:
    if held_out is None:
        train, held_out = hold_out(train, options.validation)
    if options.mode == "stream":
        return Streamed(train, held_out, options, context)
    return Prepared(train, held_out, options, context, options.documents)

"""Text tokenised once: ids on disk, memory-mapped, and rows of them by random access."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlmkit import documents
from dlmkit.core.data import Stream
from dlmkit.core.objective import Batch
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import DataError, UsageError
from dlmkit.shown import say
from dlmkit_text import cache
from dlmkit_text.codec import Codec, Ids, encoded
from dlmkit_text.layout import Layout
from dlmkit_text.mapped import Mapped, checksums
from dlmkit_text.shards import TextShards
from dlmkit_text.shuffle import permuted, uniform

FORMAT = 2
META = "meta.json"
_TELL = 10.0  # seconds between words about how far it is
_DOMAIN = 0x9E47


class Table(ABC):
    """The rows of one split. ``ends`` is where each document ends in ``ids``."""

    count: int
    """How many rows there are at any phase."""

    @property
    def fixed(self) -> int:
        """How many rows there are at phase 0, as validation rows are cut."""
        return self.count

    def __init__(self, folder: Path, split: str, dtype: str, length: int, tokenizer: Tokenizer):
        self.sums, self.split = _meta(folder).sums, split
        self.folder, self.length, self.tokenizer = folder, length, tokenizer
        self.ids, self.ends = self._mapped("ids", dtype), self._mapped("ends", "<i8")

    def _mapped(self, what: str, dtype: str) -> Mapped:
        name = f"{self.split}.{what}"
        return Mapped(self.folder / name, dtype, self.sums.get(name, ()))

    @abstractmethod
    def read(self, rows: NDArray[np.int64], phase: float) -> Batch:
        """These rows. Packed rows are cut ``phase`` (in [0, 1)) of a row later than at 0."""

    def documents(self) -> Iterator[Ids]:
        """The ids of each document, what ends it included."""
        start = 0
        for place in range(len(self.ends)):
            end = int(self.ends.between(place, place + 1)[0])
            yield self.ids.between(start, end).astype(np.int32)
            start = end

    def _batch(self, at: NDArray[np.int64], attend: NDArray[np.bool_]) -> Batch:
        ids = np.where(attend, self.ids.at(np.where(attend, at, 0)), self.tokenizer.pad_id)
        if ids.max(initial=0) >= self.tokenizer.vocab_size:
            raise DataError(f"{self.folder} is damaged: delete it, and it will be made anew")
        return Batch(torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(attend))


class Packed(Table):
    """Documents end to end, cut every ``length`` ids."""

    @property
    def count(self) -> int:  # type: ignore[override]
        return max(0, (len(self.ids) - self.length + 1) // self.length)

    @property
    def fixed(self) -> int:
        return len(self.ids) // self.length

    def read(self, rows: NDArray[np.int64], phase: float) -> Batch:
        starts = rows * self.length + int(phase * self.length)
        at = starts[:, None] + np.arange(self.length)
        return self._batch(at, np.ones(at.shape, dtype=np.bool_))


class Padded(Table):
    """One document, or a part of one, a row."""

    def __init__(self, folder: Path, split: str, dtype: str, length: int, tokenizer: Tokenizer):
        super().__init__(folder, split, dtype, length, tokenizer)
        self.bounds = self._mapped("rows", "<i8")

    @property
    def count(self) -> int:  # type: ignore[override]
        return len(self.bounds) // 2

    def read(self, rows: NDArray[np.int64], phase: float) -> Batch:
        start, end = self.bounds.at(2 * rows), self.bounds.at(2 * rows + 1)
        at = start[:, None] + np.arange(self.length)
        return self._batch(at, at < end[:, None])


class PreparedStream(Stream):
    """An endless stream over ``table``: every epoch visits every row once, in another order.

    Row ``slot`` of ``step`` is item ``step * batch_size + slot`` of that stream.
    """

    def __init__(self, table: Table, seed: int, batch_size: int) -> None:
        self.table, self.seed, self.batch_size = table, seed, batch_size

    def read(self, step: int, slots: Tensor) -> Batch:
        items = step * self.batch_size + slots.numpy()
        epochs = items // self.table.count
        ids = torch.empty((len(items), self.table.length), dtype=torch.int64)
        attend = torch.empty(ids.shape, dtype=torch.bool)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = (_DOMAIN, self.seed, int(epoch))
            rows = permuted(items[here] % self.table.count, self.table.count, *key)
            part = self.table.read(rows, uniform(*key))
            ids[torch.from_numpy(here)], attend[torch.from_numpy(here)] = part.ids, part.attend
        return Batch(ids, attend)

    def state(self) -> Mapping[str, Any]:
        """Empty: a row follows from its step and slot."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore. Raises UsageError if there is."""
        if state:
            raise UsageError(f"this data keeps no state, but a checkpoint has {sorted(state)}")


def tables(
    splits: Mapping[str, tuple[TextShards, int | None]], tokenizer: Tokenizer, layout: Layout
) -> dict[str, Table]:
    """The rows of every split of (shards, at most so many documents), prepared if need be.

    The preparation is kept under a hash of the shards' identities, the tokenizer and the layout
    of padded rows. Raises DataError if text cannot be read, or the cache not be written.
    """
    key = f"prepared-{_key(splits, tokenizer, layout)}"
    dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"

    def build(partial: Path) -> None:
        codec = Codec(tokenizer)
        for split, (shards, most) in splits.items():
            documents = itertools.islice(shards.all(), most)
            _write(partial, split, encoded(codec, documents), dtype, layout)
        files = sorted(partial.iterdir())
        meta = {
            "sizes": {path.name: path.stat().st_size for path in files},
            "sums": {path.name: checksums(path) for path in files},
        }
        (partial / META).write_text(json.dumps(meta) + "\n", encoding="utf-8")

    folder = cache.built(key, whole, build)
    kind = Padded if layout.padded else Packed
    return {split: kind(folder, split, dtype, layout.length, tokenizer) for split in splits}


def whole(folder: Path) -> bool:
    """Whether every file of a preparation is there at its full size."""
    try:
        sizes = _meta(folder).sizes
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


class _Meta(documents.Shape):
    """Of every file of a preparation, its bytes and the checksums of its pieces."""

    sizes: dict[str, int]
    sums: dict[str, list[int]]


def _meta(folder: Path) -> _Meta:
    return documents.shaped(documents.read(folder / META, limit=None), _Meta)


def _key(
    splits: Mapping[str, tuple[TextShards, int | None]], tokenizer: Tokenizer, layout: Layout
) -> str:
    # written and read once, as one that a run saved was: its JSON may differ from a new one's
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    facts = {
        "format": FORMAT,
        "splits": {name: (shards.identity, most) for name, (shards, most) in splits.items()},
        "tokenizer": backend.to_str(),
        "roles": tokenizer.roles,
        "padded": (layout.length, layout.split) if layout.padded else None,
    }
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _write(folder: Path, split: str, documents: Iterator[Ids], dtype: str, layout: Layout) -> None:
    """Write ``split`` as it comes, saying on stderr now and then how far it is."""
    names = ("ids", "ends", "rows") if layout.padded else ("ids", "ends")
    total, last_said = 0, time.monotonic()
    with ExitStack() as stack:
        files = {n: stack.enter_context((folder / f"{split}.{n}").open("wb")) for n in names}
        for ids in documents:
            if layout.padded:
                cuts = [(total + start, total + end) for start, end in layout.cuts(len(ids))]
                _put(files["rows"], np.asarray(cuts), "<i8")
            total += len(ids)
            _put(files["ids"], ids, dtype)
            _put(files["ends"], np.asarray([total]), "<i8")
            if time.monotonic() - last_said > _TELL:
                last_said = time.monotonic()
                say(f"preparing {split}: {total:,} tokens so far")


def _put(file: IO[bytes], values: NDArray[Any], dtype: str) -> None:
    file.write(values.astype(dtype).tobytes())

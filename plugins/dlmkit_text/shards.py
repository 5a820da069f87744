"""Documents in shards: what a source that may not fit in memory is read through."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dlmkit import documents, folders
from dlmkit.errors import DataError
from dlmkit.files import MIB, opened
from dlmkit_text import sources

_LONGEST = 256 * MIB
"""The most bytes of a line: a few packed kilobytes may unpack to any number."""


class TextShards(ABC):
    """One split of a source. A document's place is its shard and its record, both from 0."""

    name: str
    """What errors call it."""

    count: int
    """How many shards there are."""

    identity: str
    """Differs where the documents do, as far as can be seen without reading them."""

    files: str
    """The same, but alike for a copy of the same files."""

    @abstractmethod
    def read(self, shard: int, start: int = 0) -> Iterator[str]:
        """The documents of ``shard`` from record ``start`` on; a blank one is of no use.

        Raises DataError naming the shard and the record that cannot be read.
        """

    def all(self) -> Iterator[str]:
        """The documents of all shards, in order, without the blank ones."""
        for shard in range(self.count):
            yield from (text for text in self.read(shard) if text.strip())


def fingerprint(paths: Sequence[Path], times: bool, *facts: object) -> str:
    """A hash of names and sizes, of when each was written if ``times``, and of ``facts``."""
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns * times) for p in paths]
    words = json.dumps([files, facts]).encode()
    return hashlib.blake2b(words, digest_size=16).hexdigest()


class Filtered(TextShards):
    """``inner`` with every document blank that ``keep`` refuses: records keep their numbers."""

    def __init__(self, inner: TextShards, keep: Callable[[str], bool], rule: str) -> None:
        self.inner, self.keep, self.name = inner, keep, inner.name
        self.identity, self.files = f"{inner.identity} {rule}", f"{inner.files} {rule}"

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.inner.count

    def read(self, shard: int, start: int = 0) -> Iterator[str]:
        return (text if self.keep(text) else "" for text in self.inner.read(shard, start))


class Listed(TextShards):
    """Documents in memory, as one shard."""

    count = 1

    def __init__(self, documents: Sequence[str], name: str) -> None:
        self.documents, self.name = documents, name
        total = hashlib.blake2b(digest_size=16)
        for text in documents:
            total.update(sources.digest(text))
        self.identity = self.files = total.hexdigest()

    def read(self, shard: int, start: int = 0) -> Iterator[str]:
        return iter(self.documents[start:])


class JsonShards(TextShards):
    """Gzip files of JSON lines like C4's, each an object with the document under ``text``."""

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.paths, self.name, self.count = paths, name, len(paths)
        self.identity, self.files = (fingerprint(paths, times) for times in (True, False))

    def read(self, shard: int, start: int = 0) -> Iterator[str]:
        path = self.paths[shard]
        for record, line in enumerate(_lines(path)):
            if record >= start:
                yield _text(line, path, record)


def _lines(path: Path) -> Iterator[bytes]:
    lines = 0
    try:
        with opened(path) as raw, gzip.GzipFile(fileobj=raw) as file:
            while line := file.readline(_LONGEST + 1):
                if len(line) > _LONGEST:
                    raise DataError(
                        f"{path}, line {lines + 1} unpacks to more than {_LONGEST:,} bytes: it is "
                        "no document"
                    )
                lines += 1
                yield line
    except EOFError as error:
        raise DataError(
            f"{path} ends early, in line {lines + 1}: the file is truncated; fetch it again"
        ) from error
    except (OSError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}, line {lines + 1} cannot be read: {why}; fetch it again"
        ) from error


def _text(line: bytes, path: Path, record: int) -> str:
    where = f"{path}, line {record + 1}"
    try:
        row = json.loads(line)
        text: Any = row.get("text") if isinstance(row, dict) else None
        documents.check_text(text if isinstance(text, str) else "")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON in UTF-8 ({error}); fetch the file again") from error
    if not isinstance(row, dict) or not isinstance(text, str):
        keys = f"its keys are {', '.join(row)}" if isinstance(row, dict) else "it is no object"
        raise DataError(f'{where} holds no text under "text": {keys}')
    return text


def json_shards(folder: Path) -> tuple[JsonShards, JsonShards | None]:
    """(training, validation or None) of a folder of ``*.json.gz`` files, in order of their names.

    Raises DataError if the folder is missing or holds none.
    """
    folder = folders.expanded(folder)
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is no folder (relative paths start at {Path.cwd()})")
    paths = sorted(path for path in folder.glob("*.json.gz") if path.is_file())
    held_out = [path for path in paths if "-validation." in path.name]
    train = [path for path in paths if path not in set(held_out)]
    if not train:
        raise DataError(
            f"{folder} holds {'only validation shards' if held_out else 'no *.json.gz file'}; "
            "C4's training shards are called like c4-train.00000-of-01024.json.gz"
        )
    return (
        JsonShards(train, str(folder)),
        JsonShards(held_out, str(folder)) if held_out else None,
    )


def hold_out(inner: TextShards, share: float) -> tuple[Filtered, Filtered]:
    """(training, validation) of ``inner`` by the hash of each document."""
    return (
        Filtered(inner, lambda text: not sources.held_out(text, share), f"without {share}"),
        Filtered(inner, lambda text: sources.held_out(text, share), f"held out {share}"),
    )

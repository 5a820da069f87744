"""Datasets of the Hugging Face hub and local ones, streamed through the library `datasets`.

It is imported when such a dataset is opened, never before. What it raises becomes a DataError: it
raises a dozen kinds of error, its own, pyarrow's and the file system's.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from dlmkit import folders
from dlmkit.errors import DataError
from dlmkit_text.shards import TextShards, fingerprint

_BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".txt": "text",
    ".arrow": "arrow",
}


class HubShards(TextShards):
    """One column of one split of a dataset, which is opened when it is first read."""

    def __init__(
        self, path: str, config: str | None, split: str, column: str, revision: str | None
    ) -> None:
        self.name = f"{path}{f' ({config})' if config else ''}, split {split}"
        self.path, self.config, self.split, self.revision = path, config, split, revision
        self.column = column
        files, facts = _files(folders.expanded(path)), (config, split, column, revision)
        named = () if files else (path,)
        self.identity, self.files = (
            fingerprint(files, times, *facts, *named) for times in (True, False)
        )

    @cached_property
    def dataset(self) -> Any:
        """The column, iterable. Raises DataError if it cannot be opened or lacks the column."""
        try:
            opened = _open(self.path, self.config, self.split, self.revision)
            first = next(iter(opened), None)
        except Exception as error:
            raise DataError(_cannot_open(self.path, self.name, error)) from error
        if first is None:
            raise DataError(f"{self.name}: the dataset is empty")
        if self.column not in first:
            raise DataError(
                f"{self.name}: there is no column {self.column!r}; "
                f"there are {', '.join(sorted(first))}"
            )
        return opened.select_columns([self.column])

    @property
    def count(self) -> int:  # type: ignore[override]
        return int(self.dataset.num_shards)

    def read(self, shard: int, start: int = 0) -> Iterator[str]:
        dataset, record = self.dataset, start
        try:
            rows = dataset.shard(num_shards=self.count, index=shard).skip(start)
            for row in rows:
                yield self._text(row[self.column], shard, record)
                record += 1
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.name}, shard {shard} of {self.count}: it cannot be read from record "
                f"{record} on: {_words(error)}"
            ) from error

    def _text(self, value: Any, shard: int, record: int) -> str:
        if isinstance(value, str) or value is None:
            return value or ""
        raise DataError(
            f"{self.name}, shard {shard} of {self.count}, record {record}: column "
            f"{self.column!r} holds {type(value).__name__}, not text"
        )


def opened_rows(
    path: str, config: str | None, split: str, revision: str | None
) -> Iterator[dict[str, Any]]:
    """The records of a split, whole. Raises DataError if it cannot be opened or read."""
    name = f"{path}{f' ({config})' if config else ''}, split {split}"
    try:
        yield from _open(path, config, split, revision)
    except Exception as error:
        raise DataError(_cannot_open(path, name, error)) from error


def _open(path: str, config: str | None, split: str, revision: str | None) -> Any:
    """The split as an iterable dataset."""
    import datasets

    local = folders.expanded(path)
    if any(os.path.isfile(local / name) for name in ("state.json", "dataset_dict.json")):
        saved = datasets.load_from_disk(str(local))
        if isinstance(saved, datasets.DatasetDict):
            if split not in saved:
                raise ValueError(f"there is no split {split!r}; there are {', '.join(saved)}")
            saved = saved[split]
        return saved.to_iterable_dataset(num_shards=max(1, len(saved.cache_files)))
    if os.path.isfile(local):
        builder = next((_BUILDERS[s] for s in local.suffixes if s in _BUILDERS), None)
        if builder is None:
            raise ValueError(f"the file's name has to end in one of {', '.join(_BUILDERS)}")
        file = {split: glob.escape(str(local))}
        return datasets.load_dataset(builder, data_files=file, split=split, streaming=True)
    name, files = (str(local), _patterns(local)) if os.path.isdir(local) else (path, None)
    return datasets.load_dataset(
        name, config, data_files=files, split=split, revision=revision, streaming=True
    )


def _patterns(folder: Path) -> dict[str, list[str]] | None:
    """The files of ``folder`` by split, if its name would be read as a pattern itself."""
    from datasets.data_files import get_data_patterns

    name = glob.escape(str(folder.absolute()))
    if not glob.has_magic(str(folder.absolute())):
        return None
    by_split = get_data_patterns(name)
    return {
        str(split): [f"{name}/{pattern}" for pattern in patterns]
        for split, patterns in by_split.items()
    }


def _files(path: Path) -> list[Path]:
    """What lies at a local path; nothing for a dataset of the hub."""
    paths = sorted(path.rglob("*")) if os.path.isdir(path) else [path]
    return [file for file in paths if os.path.isfile(file)]


def _cannot_open(path: str, name: str, error: Exception) -> str:
    if os.path.exists(folders.expanded(path)):
        return f"{name} cannot be opened: {_words(error)}"
    message = (
        f"{name} cannot be opened: it is no folder or file here, and the hub gave {_words(error)}\n"
    )
    if isinstance(error, ConnectionError):
        message += (
            f"without a connection, only what lies in {folders.hub()} (HF_HOME) can be used; "
        )
    return message + LOCAL


LOCAL = (
    "to train on local files (of C4: the folder of its *.json.gz shards), name them: "
    "--set data.with.path=DIR"
)


def _words(error: Exception) -> str:
    """The kind of an error, and the first line of what it says and of its cause."""
    lines = [f"{type(error).__name__}: {error}".splitlines()[0]]
    if error.__cause__ is not None and str(error.__cause__):
        lines.append(str(error.__cause__).splitlines()[0])
    return ": ".join(lines)

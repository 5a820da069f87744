"""The run folder: what lies where, and the metrics file, which reads as one straight run's."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import Field

from dlmkit import documents, files
from dlmkit.errors import CheckpointError, UsageError
from dlmkit.folders import RECIPE as RECIPE

METRICS, ENVIRONMENT = "metrics.jsonl", "environment.json"
KINDS = ("train", "validation", "sample", "metric")
"""The kinds of record that metrics.jsonl and trackers get."""
EMPTY = {".lock", f".{RECIPE}.new"}
"""What a run that was killed at its very start has left in its folder, at most."""


class _Plugin(documents.Shape):
    """An installed plugin has a distribution and a version, a named file a path and a digest."""

    name: str
    distribution: str = ""
    version: str = ""
    path: str = ""
    sha256: str = ""


class _Environment(documents.Shape):
    """What is read of an environment; all of it may be missing."""

    dlmkit: str = ""
    data: str | None = None
    git: dict[str, Any] | None = None
    packages: dict[str, Any] = Field(default_factory=dict)
    plugins: list[_Plugin] = Field(default_factory=list)
    earlier: list[Any] = Field(default_factory=list)


def read_environment(folder: Path) -> dict[str, Any]:
    """What the record in ``folder`` says; empty if it says nothing that can be read."""
    with suppress(OSError, ValueError):
        content: dict[str, Any] = documents.read(folder / ENVIRONMENT)
        documents.shaped(content, _Environment)
        return content
    return {}


class _Line(documents.Shape):
    """What is read of a record of metrics.jsonl."""

    step: int
    kind: str


@dataclass(frozen=True)
class RunFolder:
    """A folder with recipe.yaml, environment.json, metrics.jsonl, samples/ and checkpoints/."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out while this one trains; a killed process leaves no lock."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held = files.written(self.path / ".lock")
        except OSError as error:
            why = error.strerror or error
            raise UsageError(f"no run can be written to {self.path}: {why}") from error
        with held as file:
            if not _lock(file):
                raise UsageError(f"another process is training in {self.path}; wait for it")
            yield

    def write_recipe(self, text: str) -> None:
        """The resolved recipe, which reruns this run."""
        _replace(self.path / RECIPE, text)

    def write_environment(self, now: Mapping[str, Any]) -> None:
        """The environment of this session, with those of earlier ones kept under ``earlier``."""
        before = read_environment(self.path)
        earlier = [*before.pop("earlier", []), before] if before else []
        text = json.dumps({**now, "earlier": earlier}, indent=1) + "\n"
        _replace(self.path / ENVIRONMENT, text)

    def rewind(self, step: int, pending: Collection[str] = (), source: Path | None = None) -> None:
        """Keep the metrics up to ``step`` and drop what a killed session wrote after it.

        Records at ``step`` itself of the kinds ``pending`` will be written again. ``source`` is
        the run that this one branches from.
        """
        path = (source or self.path) / METRICS
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        kept = b"".join(line for line in lines if _before(line, step, pending))
        _replace(self.path / METRICS, kept.decode())

    def write_samples(self, step: int, texts: Collection[str]) -> None:
        """samples/step-00000500.txt: the texts, one after the other, each under its index."""
        blocks = (f"--- {index}\n{text}\n" for index, text in enumerate(texts))
        _replace(self.path / "samples" / f"step-{step:08d}.txt", "".join(blocks))


class MetricsFile:
    """Appends records to metrics.jsonl, each on the disk before the next."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / METRICS
        with _writing(self._path):
            self._file = files.written(self._path, "a")

    def log(self, record: Mapping[str, Any]) -> None:
        """One line, for the kinds of :data:`KINDS`."""
        if record["kind"] in KINDS:
            with _writing(self._path):
                self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
                self._file.flush()

    def close(self) -> None:
        with suppress(OSError):  # a disk that was full is full still
            self._file.close()


def _before(line: bytes, step: int, pending: Collection[str]) -> bool:
    if not line.endswith(b"\n"):
        return False  # torn by a kill
    try:
        record = documents.shaped(documents.parse(line), _Line)
    except ValueError:
        return False
    return record.step < step or (record.step == step and record.kind not in pending)


def _replace(path: Path, text: str) -> None:
    """``path`` with new content, complete or as it was."""
    work = path.with_name(f".{path.name}.new")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.written(work) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(work, path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be written: {error.strerror or error}; no checkpoint was touched: "
            "make room, and continue with --resume auto"
        ) from error


def _lock(file: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:  # not on this platform
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True

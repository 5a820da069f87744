"""The records of a run's metrics.jsonl, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, RootModel

from dlmkit import documents, files

Record = Mapping[str, Any]


def read_metrics(path: Path) -> list[Record]:
    """The records of a run's metrics.jsonl. Raises OSError, or ValueError with the line's number
    for one that is none."""
    return [_record(path, *item) for item in enumerate(files.read_lines(path), start=1)]


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        record: Record = documents.parse(line)
        documents.shaped(record, _Line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from error
    return record


class _Level(documents.Shape):
    model: float
    context_free: float | None
    bigram: float | None


class _Train(documents.Shape):
    kind: Literal["train"]
    step: int
    loss: float
    tokens: int
    seconds: float


class _Validation(documents.Shape):
    kind: Literal["validation"]
    step: int
    loss: float
    gain: float = 0.0
    levels: list[_Level] = Field(min_length=1)


class _Metric(documents.Shape):
    kind: Literal["metric"]
    step: int
    texts: int
    metrics: dict[str, dict[str, float]]


class _Sample(documents.Shape):
    kind: Literal["sample"]
    step: int


class _Line(RootModel[_Train | _Validation | _Metric | _Sample]):
    """What is read of a record, by its kind."""

    root: _Train | _Validation | _Metric | _Sample = Field(discriminator="kind")

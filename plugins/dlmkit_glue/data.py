"""Rows of a task: from the hub, or from files of JSON lines in the hub's column names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from dlmkit import documents, files, folders
from dlmkit.errors import DataError
from dlmkit_glue.tasks import Task

HUB = "nyu-mll/glue"
TRAIN = "train"


@dataclass(frozen=True)
class Example:
    """One row: its text or its two texts, and its label (a class, or a number from 0 to 5)."""

    texts: tuple[str, ...]
    label: float


@dataclass(frozen=True)
class TaskRows:
    """The rows of a task by split, and where they came from."""

    source: str
    train: Sequence[Example]
    validation: Mapping[str, Sequence[Example]]


def load(task: Task, folder: Path | None) -> TaskRows:
    """The rows of ``task`` from ``folder``/TASK/SPLIT.jsonl, or from the hub without one.

    Raises DataError where something is missing or is not what the task's columns say.
    """
    read = _from_hub(task) if folder is None else _from_folder(task, folder)
    validation = {split: read[split] for split in task.splits}
    return TaskRows(HUB if folder is None else str(folder / task.name), read[TRAIN], validation)


def subsample(rows: Sequence[Example], most: int | None, seed: int) -> Sequence[Example]:
    """``most`` of ``rows``, drawn without replacement by ``seed``, or all in their order."""
    if most is None or most >= len(rows):
        return rows
    chosen = np.random.default_rng(seed).permutation(len(rows))[:most]
    return [rows[i] for i in sorted(chosen)]


def _from_folder(task: Task, folder: Path) -> dict[str, list[Example]]:
    files = {split: folder / task.name / f"{split}.jsonl" for split in (TRAIN, *task.splits)}
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise DataError(
            f"--data {folder}: there is no {' and no '.join(missing)}; expected JSON lines with "
            f"the columns {_columns(task)}"
        )
    return {split: _examples(task, _lines(file), str(file)) for split, file in files.items()}


def _lines(file: Path) -> list[Any]:
    try:
        lines = files.read_bytes(file, files.TEXTS).splitlines()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(documents.parse(line))
        except ValueError as error:
            raise DataError(f"{file}, line {number}: not JSON: {error}") from error
    return rows


def _from_hub(task: Task) -> dict[str, list[Example]]:
    import datasets

    try:
        splits = {
            split: datasets.load_dataset(HUB, task.name, split=split)
            for split in (TRAIN, *task.splits)
        }
    except Exception as error:  # the libraries raise a dozen kinds, their own and the network's
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"{HUB} cannot be had from the hub: {words[:200]}\n"
            f"datasets of the hub are kept in {folders.hub()} (HF_HOME); without a connection, "
            f"give the rows as files: --data DIR with DIR/{task.name}/{TRAIN}.jsonl and "
            f"{', '.join(f'{split}.jsonl' for split in task.splits)}, columns {_columns(task)}"
        ) from error
    return {
        split: _examples(task, list(rows), f"{HUB} {task.name} {split}")
        for split, rows in splits.items()
    }


def _examples(task: Task, items: Sequence[Any], where: str) -> list[Example]:
    if not items:
        raise DataError(f"{where} is empty: expected rows with the columns {_columns(task)}")
    return [_example(task, item, f"{where}, row {i}") for i, item in enumerate(items, start=1)]


def _example(task: Task, item: Any, where: str) -> Example:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object with {_columns(task)}, not {_short(item)}")
    for column in (*task.columns, "label"):
        if column not in item:
            raise DataError(
                f"{where}: no column {column!r}; {task.name} has {_columns(task)}, and here are "
                f"{', '.join(map(str, item)) or 'none'}"
            )
    texts = tuple(item[column] for column in task.columns)
    for column, text in zip(task.columns, texts, strict=True):
        if not isinstance(text, str):
            raise DataError(f"{where}: {column} is no text but {_short(text)}")
    return Example(texts, _label(task, item["label"], where))


def _label(task: Task, label: Any, where: str) -> float:
    number = isinstance(label, int | float) and not isinstance(label, bool) and isfinite(label)
    if task.regression and number and 0 <= label <= 5:
        return float(label)
    if not task.regression and number and label in range(task.classes):
        return float(label)
    expected = "a number from 0 to 5" if task.regression else f"0 to {task.classes - 1}"
    hidden = " (-1 marks the hidden labels of a test split)" if label == -1 else ""
    raise DataError(f"{where}: the label is {_short(label)}; expected {expected}{hidden}")


def _columns(task: Task) -> str:
    return ", ".join((*task.columns, "label"))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."

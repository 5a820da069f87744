"""Results on stdout, talk on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlmkit.shown import result as result
from dlmkit.shown import say as say
from dlmkit.shown import silence as silence
from dlmkit.shown import writing as writing


def result_json(value: Any) -> None:
    """A result, as one JSON document."""
    result(json.dumps(value, indent=2, ensure_ascii=False))


def answer(as_json: bool, values: Any, words: str | Callable[[], str]) -> None:
    """A result: ``values`` as JSON if that is asked for, else ``words``."""
    if as_json:
        result_json(values)
    else:
        result(words if isinstance(words, str) else words())


def listing(
    as_json: bool, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], nothing: str = ""
) -> None:
    """A result: ``rows`` as JSON, or their ``keys`` as a table; ``nothing``, on stderr, without."""
    if rows or as_json or not nothing:
        cells = [[key.upper() for key in keys], *([row[key] for key in keys] for row in rows)]
        answer(as_json, rows, columns(cells))
    else:
        say(nothing)


def written(folder: Path, as_json: bool) -> None:
    """What was written: ``folder`` and the files in it."""
    files = sorted(path.name for path in folder.iterdir())
    words = f"{folder}: {', '.join(files)}"
    answer(as_json, {"folder": str(folder), "files": files}, words)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """``rows`` as aligned text; the last column is as long as it needs to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def jsonable(value: Any) -> Any:
    """``value`` with what JSON has no word for (infinity, not a number) as text."""
    if isinstance(value, float) and value - value != 0.0:
        return str(value)
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    return [jsonable(item) for item in value] if isinstance(value, list) else value

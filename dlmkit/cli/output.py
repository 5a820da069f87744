"""Results on stdout, talk on stderr."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlmkit.shown import result as result
from dlmkit.shown import say as say
from dlmkit.shown import silence as silence
from dlmkit.shown import writing as writing


def result_json(value: Any) -> None:
    """A result, as one JSON document."""
    result(json.dumps(value, indent=2, ensure_ascii=False))


def answer(values: Any, words: str, as_json: bool) -> None:
    """A result: ``values`` as JSON if that is asked for, else ``words``."""
    if as_json:
        result_json(values)
    else:
        result(words)


def written(folder: Path, as_json: bool) -> None:
    """What was written: ``folder`` and the files in it."""
    files = sorted(path.name for path in folder.iterdir())
    answer({"folder": str(folder), "files": files}, f"{folder}: {', '.join(files)}", as_json)


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

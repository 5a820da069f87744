"""Files of texts: read, written, and measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlmkit import documents, files
from dlmkit.core.context import BuildContext
from dlmkit.errors import DataError, UsageError
from dlmkit.evaluation.evaluate import Evaluated, chosen_metrics, of_texts
from dlmkit.evaluation.measure import Intervals, gauges
from dlmkit.plugin import Part
from dlmkit.recipe.load import load_recipe
from dlmkit.registry.lookup import Registry

_FORMS = {".json": "(one list)", ".jsonl": "(one item per line)"}


def of_file(
    path: Path, recipe: str | None, metrics: Sequence[Part], intervals: Intervals
) -> Evaluated:
    """The texts of a file, measured by a recipe's data, and by its metrics unless some are named.

    Raises UsageError if no recipe is named, and what :func:`read_texts`, :func:`chosen_metrics`
    and loading the recipe raise.
    """
    texts = read_texts(path)
    if recipe is None:
        raise UsageError(
            f"{path} holds texts alone: name the recipe whose data and metrics they are measured "
            f"by: --recipe RECIPE"
        )
    registry = Registry.load()
    config = load_recipe(recipe, (), registry).config
    chosen = chosen_metrics(metrics, config, registry)
    context = BuildContext(length=config.length, seed=config.seed)
    data = registry.build("data", config.data, context)
    fitted = gauges(lambda kind, part: registry.build(kind, part, context), chosen, data)
    return of_texts(texts, path.name, config.data, data, fitted, intervals)


def read_texts(path: Path) -> list[str]:
    """The texts of a JSON list or of JSON lines: strings, or objects with a ``text``.

    Raises UsageError for a file that is called neither .json nor .jsonl, and DataError for
    anything else in it, and for no texts at all.
    """
    if path.suffix not in _FORMS:
        raise UsageError(
            f"{path}: texts are read from {' or '.join(map(' '.join, _FORMS.items()))}; an item is "
            'a string, or an object with a "text", as sample --json and eval --texts write them'
        )
    try:
        whole = files.read_bytes(path, files.TEXTS)
        lines = [line for line in whole.splitlines() if line.strip()]
        items = (
            [*map(documents.parse, lines)] if path.suffix == ".jsonl" else documents.parse(whole)
        )
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(items, list) or not items:
        raise DataError(f"{path} holds no texts: expected a list of strings, or of {{'text': ...}}")
    return [_text(path, index, item) for index, item in enumerate(items)]


def write_texts(texts: Sequence[str], path: Path) -> None:
    """A new file of JSON lines that :func:`read_texts` reads. Raises UsageError if it cannot be."""
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    documents.write_new(path, "".join(lines))


def _text(path: Path, index: int, item: Any) -> str:
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise DataError(
            f"{path}, item {index}: expected a string or an object with a text, not "
            f"{json.dumps(item)[:60]}"
        )
    return text

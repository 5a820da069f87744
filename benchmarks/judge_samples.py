"""Samples beside human text and beside what character n-grams write, under one n-gram judge.

    python benchmarks/judge_samples.py RUN -n 64 --seed 0
    python benchmarks/judge_samples.py SAMPLES.json --recipe RECIPE

RUN is a run or a checkpoint to sample from; SAMPLES.json is what `dlmkit sample --json` wrote, or
a list of texts, and RECIPE says which text to judge it by. The judge is a character 6-gram
(Kneser-Ney) of the training text. Every writer gives as many texts of the same lengths; "human"
is validation text. Read a likelihood beside the entropies only: repetition scores well.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.errors import DlmkitError, UsageError
from dlmkit.model import load_model
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.registry.lookup import Registry
from dlmkit_text.compare import Row, compare

COLUMNS = {
    "nll_per_character": "nats/char",
    "entropy_1": "H1",
    "entropy_4": "H4",
    "distinct_4": "distinct-4",
    "real_words": "real words",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code, which is that of the error if there is one."""
    options = parser().parse_args(arguments)
    try:
        samples, data = read(options)
        rows = compare(data, samples, options.order, options.seed)
    except DlmkitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(report(options, samples, rows), indent=2, ensure_ascii=False))
    else:
        print(table(rows))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("reference", metavar="RUN|SAMPLES.json")
    made.add_argument("--recipe", help="with SAMPLES.json: the recipe whose text judges")
    made.add_argument("-n", "--count", type=int, default=64, help="texts to draw from RUN")
    made.add_argument("--seed", type=int, default=0, help="of the draws and of the n-gram writers")
    made.add_argument("--steps", type=int, help="points of the grid; default: the recipe's")
    made.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    made.add_argument("--order", type=int, default=6, help="of the judge")
    made.add_argument("--json", action="store_true")
    return made


def read(options: argparse.Namespace) -> tuple[list[str], Data]:
    """(the samples, the data to judge them by)."""
    path = Path(options.reference)
    if path.is_file():
        if options.recipe is None:
            raise UsageError(f"{path} holds samples only: name their recipe by --recipe")
        config = load_recipe(options.recipe, options.set).config
        return texts(path), data_of(config, None)
    model = load_model(options.reference, options.set)
    drawn = model.sample(options.count, options.seed, steps=options.steps)
    return [sample.text for sample in drawn], data_of(model.config, model.folder)


def texts(path: Path) -> list[str]:
    """The texts of a JSON list of texts, or of objects with a ``text``."""
    try:
        found = [item if isinstance(item, str) else item["text"] for item in _list(path)]
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} is not a JSON list of texts, or of objects with a text: {error!r}"
        ) from error
    return [str(text) for text in found]


def _list(path: Path) -> list[Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, list):
        raise TypeError(f"a {type(content).__name__}")
    return content


def data_of(config: RecipeConfig, folder: Path | None) -> Data:
    """The recipe's data, with the tokenizer that a run saved in ``folder``."""
    context = BuildContext(length=config.length, seed=config.seed, folder=folder)
    built: Data = Registry.load().build("data", config.data, context)
    return built


def table(rows: Sequence[Row]) -> str:
    """One writer a line, then the beginning of a text of each."""
    width = max(len(row.writer) for row in rows)
    lines = [" ".join([" " * width, *(f"{title:>10}" for title in COLUMNS.values())])]
    for row in rows:
        cells = (f"{row.numbers[key]:10.3f}" if key in row.numbers else " " * 10 for key in COLUMNS)
        lines.append(" ".join([row.writer.ljust(width), *cells]))
    examples = (f"{row.writer}: {' '.join(row.example.split())[:160]}" for row in rows)
    return "\n".join([*lines, "", *examples])


def report(
    options: argparse.Namespace, samples: Sequence[str], rows: Sequence[Row]
) -> dict[str, Any]:
    """The table as values, with what made it."""
    return {
        "reference": options.reference,
        "judge": f"character {options.order}-gram, modified Kneser-Ney, training text",
        "texts": len(samples),
        "characters": sum(map(len, samples)),
        "seed": options.seed,
        "writers": {row.writer: {**row.numbers, "example": row.example} for row in rows},
    }


if __name__ == "__main__":
    sys.exit(main())

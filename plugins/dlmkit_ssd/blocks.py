"""``dlmkit ssd blocks``: text block after block, each given all before it (2210.17432, 3.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlmkit.errors import UsageError
from dlmkit.model import Model, Run, Text, load_model
from dlmkit.plugin import MOST
from dlmkit.sampling.requests import Request
from dlmkit.shown import result


def write(model: Model, count: int, *, block: int, seed: int, steps: int) -> list[Text]:
    """``count`` texts of the model's length. Text i depends on the seed and i alone.

    ``steps`` are those of one block, which the model sees at the end of its row. Raises
    UsageError for a block longer than the model's rows.
    """
    length = model.config.length
    if not 1 <= block <= length:
        raise UsageError(f"blocks of {block} tokens: this model writes 1 to {length}")
    done: list[tuple[int, ...]] = [()] * count
    evaluations = [0] * count
    for start in range(0, length, block):
        end = min(start + block, length)
        asked = [Request.prompt(row, ids, end) for row, ids in enumerate(done)]
        turns = model.stream(asked, Run(seed + start, steps))
        for sample in (sample for turn in turns for sample in turn.samples):
            done[sample.row] = sample.ids
            evaluations[sample.row] += sample.evaluations
    decode = model.assembly.tokenizer.decode
    pairs = enumerate(zip(done, evaluations, strict=True))
    return [Text(row, seed, decode(ids), steps, spent, None) for row, (ids, spent) in pairs]


def blocks(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder or checkpoint.")],
    block: Annotated[int, typer.Option(min=1, help="Positions of a block.")] = 16,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=MOST, help="Texts.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of all texts.")] = 0,
    steps: Annotated[
        int, typer.Option(min=1, max=MOST, help="Points of the grid, for each block.")
    ] = 32,
) -> None:
    """Draw text block after block: each is sampled at the end of the text so far."""
    loaded = load_model(model)
    for text in write(loaded, count, block=block, seed=seed, steps=steps):
        result(text.text)

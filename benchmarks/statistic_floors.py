"""Each statistic's noise floor, by dtype: what its documented constants were read from.

    python benchmarks/statistic_floors.py [--quick] [--json FILE]

Rows of 64 positions near the end of sampling (nearly settled, from one step to the next barely
moved) are drawn in double precision and their statistics computed exactly. A dtype's noise is the
largest difference of a row's value computed from rounded queries and tables by the kernels that
sampling uses, over all rows whose exact value is at most LIMIT: that is where thresholds lie. The
constants in the plugin `samplers` are this figure, rounded up to one digit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.exits import Statistic
from dlmkit.core.options import Normalised, Nothing
from dlmkit.core.points import NormalisedSpace
from dlmkit_samplers import statistics

LENGTH, LIMIT = 64, 0.1
SHAPES = {(32768, 256): 2, (4096, 64): 8, (128, 32): 64}
"""(V, d): rows of each setting."""
SETTLED = (12.0, 18.0, 25.0, 40.0)
"""Nats by which the right token's logit stands out."""
MOVES = (1e-4, 1e-3, 1e-2)
"""Standard deviation of how far logits move in a step, in nats."""
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
KINDS: dict[str, Callable[[Nothing, BuildContext], Statistic]] = {
    "entropy": statistics.Entropy,
    "kl": statistics.KullbackLeibler,
    "jeffreys": statistics.Jeffreys,
    "switches": statistics.Switches,
    "margin": statistics.Margin,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without the largest vocabulary")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    shapes = {s: n for s, n in SHAPES.items() if not options.quick or s[0] < 10_000}
    with torch.no_grad():
        rows = [row for shape, count in shapes.items() for row in measure(*shape, count)]
    for row in rows:
        print(
            f"V {row['vocabulary']:6d}  d {row['channels']:3d}  {row['dtype']:8s} "
            f"{row['statistic']:9s} {row['noise']:.2e}   of {row['rows']} rows, {row['kernel']}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(vocabulary: int, channels: int, count: int) -> Iterator[dict[str, Any]]:
    """The noise of every statistic in every dtype at one shape."""
    space = a_space(vocabulary, channels)
    now, before = queries(space, count)
    exact = read(space, now, before, plainly=True)
    for dtype in DTYPES:
        weights = torch.float64 if dtype == torch.float64 else torch.float32
        prepared = a_space(vocabulary, channels).to(weights).prepared(dtype)
        for name, values in read(prepared, now.to(dtype), before.to(dtype)).items():
            settled = exact[name] <= LIMIT if name != "margin" else exact[name] >= 1 - LIMIT
            noise = (values.double() - exact[name]).abs()[settled]
            yield {
                "vocabulary": vocabulary,
                "channels": channels,
                "dtype": str(dtype).removeprefix("torch."),
                "statistic": name,
                "kernel": prepared.kernel,
                "rows": int(settled.sum()),
                "noise": float(noise.max()) if len(noise) else 0.0,
            }


def a_space(vocabulary: int, channels: int) -> NormalisedSpace:
    torch.manual_seed(0)
    context = BuildContext(length=LENGTH, vocab_size=vocabulary)
    space = NormalisedSpace(Normalised(dim=channels, init_std=1.0), context)
    space.weight.data = torch.randn(vocabulary, channels, dtype=torch.float64)
    return space


def queries(space: NormalisedSpace, count: int) -> tuple[Tensor, Tensor]:
    """Queries of two neighbouring steps, (rows, L, d) in double precision."""
    generator = torch.Generator().manual_seed(1)
    now, before = [], []
    scale = space.dim**0.5
    for settled in SETTLED:
        for move in MOVES:
            shape = (count, LENGTH, space.dim)
            ids = torch.randint(space.vocab_size, shape[:2], generator=generator)
            noise = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
            query = space.embed(ids) * (settled / space.dim) + noise[0] / scale
            now.append(query)
            before.append(query + noise[1] * move / scale)
    return torch.cat(now), torch.cat(before)


def read(
    space: EmbeddingSpace, now: Tensor, before: Tensor, plainly: bool = False
) -> dict[str, Tensor]:
    """Every statistic of every row; ``plainly`` by sums over the vocabulary."""
    statistics: dict[str, list[Tensor]] = {name: [] for name in KINDS}
    for pair in zip(now.split(1), before.split(1), strict=True):
        now_read, before_read = (predict(space, query) for query in pair)
        space.tied = not plainly
        row = torch.ones(1, dtype=torch.bool)
        generated = torch.ones(1, LENGTH, dtype=torch.bool)
        for name, kind in KINDS.items():
            statistic = kind(Nothing(), BuildContext(length=LENGTH))
            statistics[name].append(statistic(space, now_read, before_read, row, generated))
    return {name: torch.cat(values) for name, values in statistics.items()}


def predict(space: EmbeddingSpace, query: Tensor) -> Prediction:
    x0, lse = space.read(query)
    return Prediction(x0, query.to(x0.dtype), lse, x0, x0)


if __name__ == "__main__":
    main()

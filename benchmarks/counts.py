"""What a start from counts costs: CPU seconds and memory by the size of the vocabulary.

    python benchmarks/counts.py [--tokens 2000000] [--json FILE]

Tokens are drawn by Zipf's law, each apart from the others: more different pairs than any text has.
Every size runs in a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from dlmkit.core.counts import information, neighbours, singular_points
from dlmkit.core.objective import Batch

SIZES = ((2048, 64), (8192, 128), (32_000, 256))
"""(V, d) of what is measured."""


def batches(size: int, tokens: int) -> Iterator[Batch]:
    """``tokens`` tokens of a vocabulary of ``size``."""
    generator = torch.Generator().manual_seed(0)
    likely = 1.0 / torch.arange(1, size + 1)
    for _ in range(0, tokens, 512 * 64):
        ids = torch.multinomial(likely, 512 * 64, True, generator=generator).view(512, 64)
        yield Batch(ids, torch.ones_like(ids, dtype=torch.bool))


def measure(size: int, dim: int, tokens: int) -> dict[str, float]:
    """Pairs counted, CPU seconds of counting and of points, and the peak of memory in bytes."""
    text = list(batches(size, tokens))
    began = time.process_time()
    near = neighbours(text, size, window=5)
    counted = time.process_time()
    singular_points(information(near, 0.75), dim)
    done = time.process_time()
    return {
        "vocabulary": size,
        "dim": dim,
        "pairs": near.values().numel(),
        "counting": counted - began,
        "points": done - counted,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }


def main() -> None:
    """Measure all sizes, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    reports = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for size, dim in SIZES:
            report = pool.apply(measure, (size, dim, options.tokens))
            print(
                f"V {size:,}, d {dim}: {report['pairs']:,} pairs, counting "
                f"{report['counting']:.1f} s, points {report['points']:.1f} s, peak "
                f"{report['peak'] / 2**20:,.0f} MiB",
                flush=True,
            )
            reports.append(report)
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()

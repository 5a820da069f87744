"""Refill: does wall-clock time follow the row evaluations that halting saves?

    python benchmarks/refill.py MODEL [-n 256] [--batch-size 32] [--exit oracle] [--json FILE]

Texts halt at steps known beforehand: those of the oracle exit (the first step after which no token
changes), or of an exit rule written as for `dlmkit sample --exit`. The same schedule runs with
refill (a freed slot takes the next text) and with a barrier (a batch waits for its slowest text,
and halted rows are computed in vain, at constant shape). All three runs, the full one included, are
timed in interleaved rounds; "kept" is the wall-clock speed-up over the saving in row evaluations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import figures
import torch

from dlmkit.bench.cases import FULL, Case
from dlmkit.bench.exits import record
from dlmkit.bench.measure import barrier_row_steps
from dlmkit.bench.rules import Family
from dlmkit.bench.timing import interleaved, summary
from dlmkit.exits.replay import oracle, replay
from dlmkit.model import Model
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.slots import constant

ORACLE = "oracle"


def measure(options: argparse.Namespace, subject: Model) -> dict[str, Any]:
    """The figure, printed."""
    sampler, grid = figures.own(subject)
    steps = options.steps or subject.config.sample.steps
    case = Case(sampler, grid, steps, options.batch_size, exit=FULL)
    when = halting(options, subject, case)
    runs = ways(options, subject, case, when)
    for way in runs.values():
        way()
    seconds = {
        name: summary(own)
        for name, own in zip(runs, interleaved([*runs.values()], options.rounds), strict=True)
    }
    full_rows, needed = steps * options.count, int(when.sum())
    saving = full_rows / needed
    barrier = full_rows / barrier_row_steps(when.tolist(), options.batch_size)
    found: dict[str, Any] = {"steps": steps, "exit": options.exit, "saving": saving}
    print(f"{sampler} on {grid}, {steps} steps, {options.count} texts, {figures.threads()}")
    print(f"row evaluations: full {full_rows}, needed {needed}: saving {saving:.3f}x")
    for name, counted in (("refill", saving), ("barrier", barrier)):
        speed_up = {k: seconds["full"][k] / seconds[name][k] for k in ("min", "median")}
        kept = {key: value / saving for key, value in speed_up.items()}
        found[name] = {"counted": counted, "speed_up": speed_up, "kept": kept}
        print(
            f"{name}: {speed_up['min']:.3f}x in wall-clock time (median {speed_up['median']:.3f}), "
            f"{counted:.3f}x by count; kept {kept['min']:.3f} (median {kept['median']:.3f})"
        )
    return {**found, "seconds": seconds}


def halting(options: argparse.Namespace, subject: Model, case: Case) -> torch.Tensor:
    """The step at which each text halts."""
    requests = unconditional(options.count, subject.config.length)
    families = [] if options.exit == ORACLE else [Family.of(subject, options.exit)]
    bucket = torch.zeros(options.count, dtype=torch.int64)
    trace = record(
        subject, case, families, requests, options.count, bucket, 0.01, options.seed
    ).report
    return (replay(trace, families[0](None)) if families else oracle(trace)).steps


def ways(
    options: argparse.Namespace, subject: Model, case: Case, when: torch.Tensor
) -> dict[str, Callable[[], Any]]:
    """The three runs."""
    whole = figures.work(subject, case, options.count, options.seed)

    def scheduled(first: int, last: int, **changes: Any) -> int:
        work = replace(whole, requests=whole.requests[first:last], **changes)
        return work.ending(when[first:last]).run().executed

    def barrier() -> int:
        size = options.batch_size
        firsts = range(0, options.count, size)
        return sum(
            scheduled(i, i + size, width=constant, batch_size=min(size, options.count - i))
            for i in firsts
        )

    return {
        "full": whole.run,
        "refill": lambda: scheduled(0, options.count),
        "barrier": barrier,
    }


if __name__ == "__main__":
    made = figures.parser(__doc__, 256)
    made.add_argument("--exit", default=ORACLE, help="a rule with its threshold; default: oracle")
    made.add_argument("--steps", type=int, help="default: the recipe's")
    made.add_argument("--rounds", type=int, default=7)
    raise SystemExit(figures.run(made, measure))

"""Training beside other programs: steps per second by how threads wait, how many, and the load.

    python benchmarks/busy.py --rounds 8 --seconds 5 --load 0,1,4 [--json FILE]

One process per way of waiting trains README's first recipe and is ready before anything is timed.
Then windows of --seconds take turns: each way once at each load, while the others stand still. A
load of N is N more processes that only count, which this script starts and stops. Run it on cores
that are idle otherwise, or the load is another than it says. Aims: dlmkit's choice costs at most
3 % of idle cores' speed, and keeps half of it beside one busy process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAYS: dict[str, dict[str, str]] = {
    "spin": {"GOMP_SPINCOUNT": "300000"},  # what GNU's OpenMP does of itself
    "sleep": {"OMP_WAIT_POLICY": "PASSIVE"},
    "dlmkit": {},  # spins while nobody wants the core, else sleeps
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WARM_UP = 3
CHOSEN = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def work(recipe: str) -> None:
    """Train for as many seconds as each line of standard input says; report steps and CPU time."""
    from dlmkit.recipe.assemble import assemble
    from dlmkit.recipe.load import load_recipe
    from dlmkit.registry.lookup import Registry
    from dlmkit.training.memory import keep_freed  # before torch: how threads wait is chosen here
    from training_step import loop  # isort: skip

    registry = Registry.load()
    keep_freed()
    steps = loop(assemble(load_recipe(recipe, [], registry).config, registry))
    for _ in range(WARM_UP):
        next(steps)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        began, cpu, count, seconds = time.perf_counter(), time.process_time(), 0, 0.0
        while seconds < float(line):
            next(steps)
            count, seconds = count + 1, time.perf_counter() - began
        spent = (time.process_time() - cpu) / count
        print(json.dumps({"rate": count / seconds, "cpu": spent}), flush=True)


def start(recipe: str, variables: dict[str, str]) -> Any:
    """A process that is ready to train."""
    unset = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", "--recipe", recipe],
        env={**unset, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    answer(process)
    return process


def answer(process: Any) -> Any:
    """What a process says next. Raises SystemExit if it ended instead."""
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a training process ended with exit code {process.wait()}")
    return json.loads(line)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Run beside ``count`` processes that count."""
    code = "while True: pass"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--recipe", default="ddlm_small")
    options.add_argument("--rounds", type=int, default=8)
    options.add_argument("--seconds", type=float, default=5.0, help="of one window")
    options.add_argument("--load", default="0,1,4", help="how many busy processes")
    options.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.worker:
        work(given.recipe)
        return
    loads = [int(load) for load in given.load.split(",")]
    before = os.getloadavg()[0]
    workers = {way: start(given.recipe, variables) for way, variables in WAYS.items()}
    windows: dict[str, dict[str, list[dict[str, float]]]] = {
        way: {str(load): [] for load in loads} for way in WAYS
    }
    for _ in range(given.rounds):
        for load in loads:
            for way, worker in workers.items():
                with busy(load):
                    worker.stdin.write(f"{given.seconds}\n")
                    worker.stdin.flush()
                    windows[way][str(load)].append(answer(worker))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    print(report(windows, before))
    if given.json:
        given.json.write_text(
            json.dumps({"load_before": before, "found": windows}, indent=1) + "\n"
        )


def report(windows: dict[str, dict[str, list[dict[str, float]]]], before: float) -> str:
    """Medians, and the two ratios that have an aim."""
    lines = [f"load before: {before:.2f}", "steps per second (CPU seconds per step), medians"]
    loads = list(next(iter(windows.values())))
    lines.append(f"{'busy processes':16}" + "".join(f"{load:>18}" for load in loads))
    rate: dict[tuple[str, str], float] = {}
    for way, by_load in windows.items():
        cells = []
        for load, timed in by_load.items():
            rate[way, load] = statistics.median(window["rate"] for window in timed)
            cpu = statistics.median(window["cpu"] for window in timed)
            cells.append(f"{rate[way, load]:9.2f} ({cpu:6.3f})")
        lines.append(f"{way:16}" + "".join(cells))
    if "0" in loads:
        idle = rate["dlmkit", "0"] / rate["spin", "0"]
        lines.append(f"dlmkit over spin on idle cores: {idle:.3f} (aim: 0.97)")
    if {"0", "1"} <= set(loads):
        kept = rate["dlmkit", "1"] / rate["dlmkit", "0"]
        lines.append(f"dlmkit, kept beside one busy process: {kept:.3f} (aim: 0.5)")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""CPU seconds of commands that look at something, beside the imports that they stand on.

    python benchmarks/start_up.py --rounds 20 [--beside FOLDER] [--json FILE]

Every command is a process of its own; its user and system time are added up. Rounds are
interleaved, so that what else the machine does meets all commands alike, and the first, which
compiles modules, is not counted. With --beside, the same commands of another checkout stand beside
these.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTS = {
    "python": "pass",
    "import pydantic, typer": "import pydantic, typer; pydantic.BaseModel",
    "import dlmkit": "import dlmkit",
}
COMMANDS = ("--version", "--help", "recipe ls", "recipe check ddlm_small", "components list")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=20, help="rounds; default: 20")
    options.add_argument("--beside", type=Path, metavar="FOLDER", help="another checkout")
    options.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    given = options.parse_args()
    checkouts = {"": ROOT, **({"beside": given.beside.resolve()} if given.beside else {})}
    with tempfile.TemporaryDirectory() as compiled:
        seconds = measured(checkouts, given.rounds, compiled)
    print(f"{'CPU seconds: minimum, median':34}" + "".join(f"{n:>16}" for n in checkouts))
    for name in (*IMPORTS, *COMMANDS):
        values = [seconds[checkout][name] for checkout in checkouts]
        cells = "".join(f"{v['min']:8.3f}{v['median']:8.3f}" for v in values)
        ratio = f"   x {values[0]['median'] / values[1]['median']:.2f}" if len(values) > 1 else ""
        print(f"{name:34}{cells}{ratio}")
    if given.json:
        given.json.write_text(json.dumps(seconds, indent=2) + "\n")


def measured(
    checkouts: Mapping[str, Path], rounds: int, compiled: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Minimum and median of every import and command of every checkout."""
    calls = {name: ["-c", code] for name, code in IMPORTS.items()}
    calls |= {name: ["-m", "dlmkit", *name.split()] for name in COMMANDS}
    seconds: dict[str, dict[str, list[float]]] = {c: {n: [] for n in calls} for c in checkouts}
    for number in range(rounds + 1):
        for name, arguments in calls.items():
            for checkout, folder in checkouts.items():
                spent = cpu_seconds(arguments, folder, compiled)
                if number > 0:
                    seconds[checkout][name].append(spent)
    return {
        checkout: {n: {"min": min(s), "median": statistics.median(s)} for n, s in cases.items()}
        for checkout, cases in seconds.items()
    }


def cpu_seconds(arguments: list[str], folder: Path, compiled: str) -> float:
    """What one python with ``arguments`` spends, the packages of ``folder`` first on its path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {
        "PYTHONPATH": os.pathsep.join((str(folder), str(folder / "plugins"))),
        "PYTHONPYCACHEPREFIX": compiled,
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(  # not in this folder, which would come before the path
        [sys.executable, *arguments],
        cwd=compiled,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()

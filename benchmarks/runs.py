"""Runs that a benchmark trains, as a user would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def train(recipe: str, sets: Sequence[str], steps: int, folder: Path, *before: str) -> None:
    """Train ``recipe`` for ``steps`` in ``folder``, or as far as it is still to go, on one thread;
    nothing is measured on the way. ``before`` are words ahead of the command."""
    never = [f"train.{what}_every={steps}" for what in ("validate", "sample")]
    same = ["train.threads=1", f"train.steps={steps}", "metric=[]", "sample.count=1"]
    options = [part for item in (*sets, *never, *same) for part in ("--set", item)]
    words = [*before, "train", recipe, "--out", str(folder), "--resume", "auto", *options]
    subprocess.run([sys.executable, "-m", "dlmkit", *words], check=True, stdout=subprocess.DEVNULL)

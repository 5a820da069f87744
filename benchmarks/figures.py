"""What the figure scripts share: their options, and runs of one case."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dlmkit import devices
from dlmkit.bench import device as machine
from dlmkit.bench import document
from dlmkit.bench.cases import Case
from dlmkit.bench.defaults import short
from dlmkit.bench.measure import Work
from dlmkit.bench.parts import parts_of
from dlmkit.errors import DlmkitError
from dlmkit.model import Model, open_model
from dlmkit.sampling.requests import unconditional
from dlmkit.training.memory import keep_freed


def parser(doc: str | None, texts: int) -> argparse.ArgumentParser:
    """The options that every figure has."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("model", metavar="MODEL", help="a run's folder, a checkpoint, or markov")
    made.add_argument("-n", "--count", type=int, default=texts, help=f"texts; default {texts}")
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    made.add_argument("--device", default="auto", metavar="auto|cpu|cuda|...")
    made.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    return made


Measure = Callable[[argparse.Namespace, Model], Any]


def run(made: argparse.ArgumentParser, measure: Measure) -> int:
    """Measure, print and write; returns the exit code, which is that of the error if any."""
    options = made.parse_args()
    keep_freed()
    try:
        device = devices.choose(options.device)
        subject = open_model(options.model, options.set, device=device)
        found = measure(options, subject)
    except DlmkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    found = {"machine": machine.describe(device), "versions": document.versions(), **found}
    found |= {"model": options.model, "texts": options.count, "seed": options.seed}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def own(subject: Model) -> tuple[str, str]:
    """The sampler and the grid of the model's recipe, in their short form."""
    config = subject.config
    return short(subject, "sampler", config.sampler), short(subject, "grid", config.grid)


def work(subject: Model, case: Case, count: int, seed: int) -> Work:
    """``count`` free texts of ``case``."""
    length = subject.config.length
    requests = unconditional(count, length)
    return Work(parts_of(subject, case), requests, seed, case.steps, case.batch_size, length)


def threads() -> str:
    """How many, in words."""
    return f"{torch.get_num_threads()} thread(s)"

"""Checks of trackers. They run in a temporary folder, which stands in for the home folder too."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from dlmkit.core.tracker import Tracker
from dlmkit.testing.compare import require
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

KIND = "tracker"

RECORDS: list[dict[str, Any]] = [
    {"kind": "train", "step": 1, "loss": 3.5, "gradient_norm": 1.0},
    {"kind": "train", "step": 2, "loss": float("nan"), "gradient_norm": float("inf")},
    {"kind": "validation", "step": 2, "loss": 3.0, "levels": [{"sigma": 1.0, "loss": 2.0}]},
    {"kind": "sample", "step": 2, "texts": ["a text", "", "eine Übung"]},
    {"kind": "checkpoint", "step": 2, "path": "checkpoints/step-2"},
    {"kind": "metric", "step": 2, "entropy": 1.5},
]


@contextmanager
def run_folder() -> Iterator[Path]:
    """A run's folder, alone in a home and current folder of its own."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, chdir(home):
        folder = Path(home) / "runs" / "check"
        folder.mkdir(parents=True)
        os.environ["HOME"] = home
        try:
            yield folder
        finally:
            os.environ.clear()
            os.environ.update(before)


def track(tracker: Tracker, folder: Path, records: list[dict[str, Any]]) -> None:
    """A whole session."""
    tracker.open(folder, {"seed": 0, "train": {"steps": 2}})
    for record in records:
        tracker.log(record)
    tracker.close()


@check(KIND)
def takes_every_record(subject: Subject) -> None:
    """It takes every kind of record, numbers that are not finite among them"""
    tracker = subject.build()
    with run_folder() as folder:
        track(tracker, folder, RECORDS)


@check(KIND)
def resumes_a_run(subject: Subject) -> None:
    """A second session of the same run is taken as well"""
    with run_folder() as folder:
        for start in (0, 10):
            records = [{**record, "step": record["step"] + start} for record in RECORDS]
            track(subject.build(), folder, records)


@check(KIND)
def closes_without_records(subject: Subject) -> None:
    """A run that ends before its first record closes it all the same"""
    tracker = subject.build()
    with run_folder() as folder:
        track(tracker, folder, [])


@check(KIND)
def records_are_left_alone(subject: Subject) -> None:
    """A record goes on to the next tracker as it came"""
    tracker, copies = subject.build(), [{**record} for record in RECORDS]
    with run_folder() as folder:
        track(tracker, folder, copies)
    same = [repr(copy) for copy in copies] == [repr(record) for record in RECORDS]
    require(same, "it changed a record")


@check(KIND)
def leaves_the_run_alone(subject: Subject) -> None:
    """What a run has written stays as it is"""
    tracker = subject.build()
    with run_folder() as folder:
        for name in ("recipe.yaml", "metrics.jsonl", "environment.json"):
            (folder / name).write_text(name)
        track(tracker, folder, RECORDS)
        kept = [(folder / name).read_text() for name in ("recipe.yaml", "metrics.jsonl")]
    require(kept == ["recipe.yaml", "metrics.jsonl"], "it changed a file of the run")

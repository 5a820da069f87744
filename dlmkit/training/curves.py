"""The picture that a run leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlmkit import files, folders
from dlmkit.errors import UsageError
from dlmkit.training.folder import METRICS, RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlmkit.training.loop import StepRecord

CURVES = "curves.png"


def drawn(source: str | Path | Iterable[StepRecord]) -> Figure:
    """The curves of a run's folder, or of the records of a training in Python.

    Raises UsageError for a folder that is no run's, and for no records at all.
    """
    from dlmkit.training.metrics import read_metrics
    from dlmkit.training.plots import curves

    if isinstance(source, str | Path):
        path = folders.expanded(str(source)) / METRICS
        try:
            records = read_metrics(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {files.why(error)}") from error
        except ValueError as error:
            raise UsageError(str(error)) from error
    else:
        records = [{"kind": "train", **asdict(record)} for record in source]
    if not records:
        raise UsageError("there are no records to draw: nothing was logged yet")
    return curves(records)


class CurvesPicture:
    """Draws curves.png from metrics.jsonl when the run ends, if it was ever validated."""

    def __init__(self, folder: RunFolder, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder.path, say
        self.due = False

    def log(self, record: Mapping[str, Any]) -> None:
        self.due = self.due or record["kind"] == "validation"

    def close(self) -> None:
        if not self.due:
            return
        from dlmkit.training.metrics import read_metrics
        from dlmkit.training.plots import curves  # matplotlib is slow to import

        try:
            curves(read_metrics(self.folder / METRICS)).savefig(self.folder / CURVES, dpi=110)
        except (OSError, ValueError) as error:  # the disk is full, or metrics.jsonl is torn
            self.say(f"{self.folder / CURVES} could not be written: {error}")

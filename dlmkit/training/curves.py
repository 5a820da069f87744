"""The picture that a run leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dlmkit.training.folder import METRICS, RunFolder

CURVES = "curves.png"


class Curves:
    """Draws curves.png from metrics.jsonl when the run ends, if it was ever validated."""

    def __init__(self, folder: RunFolder, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder.path, say
        self.due = False

    def log(self, record: Mapping[str, Any]) -> None:
        self.due = self.due or record["kind"] == "validation"

    def close(self) -> None:
        if not self.due:
            return
        from dlmkit.evaluation.plots import curves, read_metrics  # matplotlib is slow to import

        try:
            curves(read_metrics(self.folder / METRICS)).savefig(self.folder / CURVES, dpi=110)
        except (OSError, ValueError) as error:  # the disk is full, or metrics.jsonl is torn
            self.say(f"{self.folder / CURVES} could not be written: {error}")

"""The tracker `tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlmkit.core.context import BuildContext
from dlmkit.core.tracker import Tracker
from dlmkit_trackers import configs
from dlmkit_trackers.records import required, scalars, texts


class TensorBoard(Tracker):
    """Scalars and sample texts as event files.

    The first record's step purges what a killed session wrote after it.
    """

    def __init__(self, config: configs.TensorBoard, context: BuildContext) -> None:
        required("tensorboard", "tensorboard")
        self.library = required("torch.utils.tensorboard", "tensorboard")
        self.config = config
        self.writer: Any = None

    def open(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self.folder = folder / self.config.folder

    def log(self, record: Mapping[str, Any]) -> None:
        step = record["step"]
        if self.writer is None:
            self.writer = self.library.SummaryWriter(str(self.folder), purge_step=step)
        for name, value in scalars(record).items():
            self.writer.add_scalar(name, value, step)
        for name, text in texts(record).items():
            self.writer.add_text(name, text, step)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

"""The tracker `trackio`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from dlmkit.core.context import BuildContext
from dlmkit.core.tracker import Tracker
from dlmkit_trackers import configs
from dlmkit_trackers.records import required, scalars, texts


class Trackio(Tracker):
    """Numbers and sample texts in a project of this machine; `trackio show` shows them.

    A resumed run goes on under its name. The library's own talk goes to stderr.
    """

    def __init__(self, config: configs.Trackio, context: BuildContext) -> None:
        with redirect_stdout(sys.stderr):
            self.library = required("trackio", "trackio")
        self.config = config

    def open(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        with redirect_stdout(sys.stderr):
            self.library.init(
                project=self.config.project,
                name=self.config.name or folder.resolve().name,
                config=dict(recipe),
                resume="allow",
                embed=False,
            )

    def log(self, record: Mapping[str, Any]) -> None:
        with redirect_stdout(sys.stderr):
            self.library.log({**scalars(record), **texts(record)}, step=record["step"])

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self.library.finish()

"""What the plugin `viewers` provides: the commands `dlmkit view` and `dlmkit analyze`."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import hookimpl
from dlmkit.plugin import Command

api = 2


@hookimpl
def register_commands() -> Sequence[Command]:
    return [
        Command(
            "view",
            "Watch one text of a trace: a line per step, or a page with a player.",
            "dlmkit_viewers.command:view",
            top=True,
        ),
        Command(
            "analyze",
            "Look at what a model has learned and does: pictures, an HTML report, data as JSON.",
            "dlmkit_viewers.analyze:analyze",
            top=True,
        ),
    ]

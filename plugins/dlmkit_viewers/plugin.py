"""What the plugin `viewers` provides: the command `dlmkit view`."""

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
            "Watch one text of a trace: a line a step, or a page with a player.",
            "dlmkit_viewers.command:view",
            top=True,
        ),
    ]

"""What the plugin `glue` provides: the command `dlmkit glue`."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import hookimpl
from dlmkit.plugin import Command

api = 2


@hookimpl
def register_commands() -> Sequence[Command]:
    return [
        Command(
            "glue",
            "Fine-tune MODEL on a task of GLUE, and score it on validation rows.",
            "dlmkit_glue.command:glue",
            top=True,
        )
    ]

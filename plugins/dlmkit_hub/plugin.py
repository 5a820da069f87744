"""What the plugin `hub` provides: the commands `dlmkit export`, `push` and `pull`."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import hookimpl
from dlmkit.plugin import Command

api = 2


@hookimpl
def register_commands() -> Sequence[Command]:
    return [
        Command(
            "export",
            "Write a model as a folder of the Hugging Face hub.",
            "dlmkit_hub.export:export",
            top=True,
        ),
        Command(
            "push",
            "Export a model and send it to the Hugging Face hub, with the token of hf auth login.",
            "dlmkit_hub.command:push",
            top=True,
        ),
        Command(
            "pull",
            "Fetch a model of dlmkit from the Hugging Face hub and verify it.",
            "dlmkit_hub.command:pull",
            top=True,
        ),
    ]

"""What the plugin `hub` provides: the commands `dlmkit push` and `dlmkit pull`."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import hookimpl
from dlmkit.plugin import Command

api = 2


@hookimpl
def register_commands() -> Sequence[Command]:
    return [
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

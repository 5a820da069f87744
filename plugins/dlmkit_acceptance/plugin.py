"""What the plugin `acceptance` provides: the commands `dlmkit acceptance measure` and `show`."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import hookimpl
from dlmkit.plugin import Command

api = 2


@hookimpl
def register_commands() -> Sequence[Command]:
    return [
        Command(
            "measure",
            "Measure MODEL beside exact n-gram models of its own text.",
            "dlmkit_acceptance.command:measure",
        ),
        Command(
            "show",
            "Print what a file of `measure` says, as tables.",
            "dlmkit_acceptance.command:show",
        ),
    ]

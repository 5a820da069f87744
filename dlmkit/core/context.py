"""What a component is built with: the facts of this run, beside the user's own options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dlmkit.errors import RecipeError
from dlmkit.plugin import Part


def _cannot_build(kind: str, part: Part) -> Any:
    raise LookupError(f"this context cannot build nested parts (asked for {kind} {part.use})")


class Buildable:
    """Base of parts that may have no options.

    A part is built of its options and a :class:`BuildContext`; one that reads them has a
    constructor of its own.
    """

    def __init__(self, config: Any = None, context: Any = None) -> None:
        super().__init__()


@dataclass(frozen=True)
class BuildContext:
    """Facts of this run, frozen.

    ``length`` is L, ``vocab_size`` is V (0 and -1 for ``pad_id`` until the data is built).
    ``parts`` holds what was built before: data, then space, schedule, network, masking, then
    objective. ``build(kind, part)`` builds a nested part. ``folder`` is where a component may
    read what a run or checkpoint saved with it (a tokenizer), if there is one.
    """

    length: int
    vocab_size: int = 0
    pad_id: int = -1
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    attention: str = "auto"
    folder: Path | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[[str, Part], Any] = _cannot_build

    def part(self, kind: str) -> Any:
        """The part of ``kind`` built before this one."""
        if kind not in self.parts:
            raise LookupError(f"no {kind} has been built yet; there are {sorted(self.parts)}")
        return self.parts[kind]

    def rows(self, size: int | None) -> int:
        """Rows of a space's table of tokens: V, or the ``size`` that a released model gives it.

        Raises RecipeError for fewer than V.
        """
        if size is None:
            return self.vocab_size
        if size < self.vocab_size:
            raise RecipeError(
                f"space.with.size: {size} rows, and the tokenizer's largest id is "
                f"{self.vocab_size - 1}"
            )
        return size

"""Remasking: which written positions of a masked model go back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from dlmkit.core.candidates import Candidates
from dlmkit.core.context import Buildable
from dlmkit.types import Mask


class Remask(Buildable, ABC):
    """Puts the mask back where a token was written.

    Pure: what it must remember is its row-first memory.
    """

    replaces: bool = True
    """Whether one more is written for each position that goes back: so a row keeps its pace."""

    def init(self, x: Tensor) -> Any:
        """The memory of rows that have taken no step yet: row-first, by default empty."""
        return ()

    @abstractmethod
    def back(self, candidates: Candidates, accepted: Mask, memory: Any) -> tuple[Mask, Any]:
        """(the positions that go back now, the new memory).

        Only those at ``candidates.settled`` count, and none at a row's last step. ``accepted`` are
        the positions that are written at the same step. A rule that draws takes
        ``candidates.step.noise``, forked to :data:`~dlmkit.core.candidates.BACK`.
        """

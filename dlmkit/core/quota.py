"""Quotas: how many positions of a masked model are written at a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from dlmkit.core.candidates import Candidates
from dlmkit.core.context import Buildable
from dlmkit.types import Ids, Mask, PerRow


class Quota(Buildable, ABC):
    """Accepts some open positions, in the order that they are ranked in.

    Pure: what it must remember is its row-first memory.
    """

    order: ClassVar[str | None] = None
    """The order it is made for, as a recipe names it, by which the bench runs it; None: that of
    confidence."""
    on_grid: ClassVar[bool] = False
    """Whether the steps of the grid set its pace; else the first number of its options does."""

    def init(self, x: Tensor) -> Any:
        """The memory of rows that have taken no step yet: row-first, by default empty."""
        return ()

    @abstractmethod
    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        """(the positions that are written now, the new memory).

        ``rank`` is each position's place in its row's order, from 0, open positions before all
        others. A row that has an open position is given at least one, or an evaluation is spent on
        nothing. Whatever is masked at the grid's last step is written there without being asked.
        """

    def share(self, masked: PerRow, memory: Any) -> PerRow | None:
        """The share of masked tokens that the network is told, None for the grid's own level.

        By default ``masked``: the share of the row's tokens that is masked now.
        """
        return masked

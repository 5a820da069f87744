"""Orders: which open positions of a masked model come first."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dlmkit.core.candidates import Candidates
from dlmkit.core.context import Buildable
from dlmkit.types import PerPosition


class Order(Buildable, ABC):
    """Scores positions: the highest of a row is written first.

    Pure, and of the prediction alone: with one token a step any such order writes texts of the
    model's own distribution, where one that looked at drawn tokens would not.
    """

    @abstractmethod
    def scores(self, candidates: Candidates) -> PerPosition:
        """One number per position, (B, L). Only those at ``candidates.open`` count.

        Positions of equal score are ordered by keyed noise. An order that draws takes
        ``candidates.step.noise``, at draw :data:`~dlmkit.core.candidates.CHANCE`.
        """

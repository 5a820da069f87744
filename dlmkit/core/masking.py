"""Maskings: which positions of a training row are given."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from dlmkit.core.context import Buildable
from dlmkit.noise import Noise
from dlmkit.types import Index, Mask, PerPosition


class Masking(Buildable, ABC):
    """Draws the given positions of each row."""

    @abstractmethod
    def draw(self, attend: Mask, noise: Noise) -> Mask:
        """True where a position is given (clean). ``attend`` is False at padding.

        Row i depends on ``noise`` of row i and ``attend`` of row i alone. Every row keeps at
        least one position that is neither given nor padding.
        """


def uniform_count(attend: Mask, noise: Noise) -> Index:
    """A uniform count from 0 to one less than each row's tokens, so that one stays noised."""
    return (noise.uniform(0, dtype=torch.float64) * attend.sum(dim=1)).long()


def lowest(order: PerPosition, attend: Mask, count: Index) -> Mask:
    """The ``count`` tokens of each row with the lowest ``order``; padding is never among them."""
    rank = torch.where(attend, order, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return (rank < count[:, None]) & attend

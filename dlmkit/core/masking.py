"""Maskings: which positions of a training row are given."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dlmkit.noise import Noise
from dlmkit.types import Mask


class Masking(ABC):
    """Draws the given positions of each row."""

    @abstractmethod
    def draw(self, attend: Mask, noise: Noise) -> Mask:
        """True where a position is given (clean). ``attend`` is False at padding.

        Row i depends on ``noise`` of row i and ``attend`` of row i alone. Every row keeps at
        least one position that is neither given nor padding.
        """

"""The metric `copied`: how much of a text the training text holds, to the letter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dlmkit.core.data import Data
from dlmkit_metrics.configs import Copied
from dlmkit_text.cut import CutMetric
from dlmkit_text.pieces import SEPARATOR
from dlmkit_text.symbols import Alphabet

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]


class CopiedMetric(CutMetric[Copied, Ints]):
    """Windows that stand in the training text, whose documents are joined as rows join them.

    Windows are compared by a hash of 64 bits. 8 bytes are held per distinct window.
    """

    def fit(self, data: Data) -> None:
        """Take the training text of ``data``, and its validation text to stand beside."""
        super().fit(data)
        units = self.cut(SEPARATOR.join(data.texts("train")))
        self.alphabet = Alphabet(units)
        self.values = np.random.default_rng(0).integers(
            0, 2**64, size=len(self.alphabet) + 1, dtype=np.uint64
        )
        self.known = np.unique(self._windows(units))

    def table(self, texts: Sequence[str]) -> Ints:
        """A row per text: how many of its windows were found, and how many it has."""
        windows = [self._windows(self.cut(text)) for text in texts]
        return np.array([[self._known(w).sum(), len(w)] for w in windows], dtype=np.int64)

    def numbers(self, table: Ints, chosen: Sequence[int]) -> dict[str, float]:
        """``copied``: share of the windows of all texts; nothing where all are shorter than one."""
        copied, windows = table[np.asarray(chosen, dtype=np.int64)].sum(axis=0).tolist()
        return {"copied": copied / windows} if windows else {}

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, 1.0

    def _known(self, windows: Hashes) -> NDArray[np.bool_]:
        """Which of them the training text has, by bisection: ``np.isin`` would sort it anew."""
        if not len(self.known):
            return np.zeros(len(windows), dtype=bool)
        places = np.searchsorted(self.known, windows).clip(max=len(self.known) - 1)
        equal: NDArray[np.bool_] = self.known[places] == windows
        return equal

    def _windows(self, units: Sequence[str]) -> Hashes:
        """A polynomial in an odd number, modulo 2^64, whose coefficients are random by unit."""
        coefficients = self.values[self.alphabet.encode(units)]  # -1, unseen: the last one
        window = self.config.window
        total = np.zeros(max(len(units) - window + 1, 0), dtype=np.uint64)
        for place in range(window if len(total) else 0):
            total = total * _BASE + coefficients[place : place + len(total)]
        return total


_BASE = np.uint64(0x9E3779B97F4A7C15)

"""How documents become rows: packed end to end, or one per row and padded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dlmkit.core.objective import Batch
from dlmkit_text.codec import Ids


@dataclass(frozen=True)
class Layout:
    """Rows of ``length``; ``split`` cuts a document too long for a padded row, not truncates."""

    length: int
    padded: bool
    split: bool

    def __str__(self) -> str:
        if not self.padded:
            return "packed"
        return f"padded ({'split' if self.split else 'truncated'})"

    def cuts(self, size: int) -> Iterator[tuple[int, int]]:
        """(start, end) of every padded row of a document of ``size`` ids."""
        last = size if self.split else 1
        return ((s, min(s + self.length, size)) for s in range(0, last, self.length))

    def rows(self, documents: Iterable[Ids]) -> Iterator[Ids]:
        """The rows of ``documents``, in order; of packed ones, the last is left out if not full."""
        rest: Ids = np.empty(0, dtype=np.int32)
        for ids in documents:
            if self.padded:
                yield from (ids[start:end] for start, end in self.cuts(len(ids)))
                continue
            rest = np.concatenate((rest, ids))
            full = len(rest) // self.length * self.length
            yield from rest[:full].reshape(-1, self.length)
            rest = rest[full:]

    def batch(self, rows: Sequence[Ids], pad_id: int) -> Batch:
        """``rows`` as a batch; what they are shorter than ``length`` is padding."""
        ids = np.full((len(rows), self.length), pad_id, dtype=np.int64)
        attend = np.zeros(ids.shape, dtype=np.bool_)
        for i, row in enumerate(rows):
            ids[i, : len(row)], attend[i, : len(row)] = row, True
        return Batch(torch.from_numpy(ids), torch.from_numpy(attend))

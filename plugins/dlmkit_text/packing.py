"""Rows of a packed corpus by random access: which tokens, as a pure function of (seed, index)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlmkit.core.data import Stream
from dlmkit.core.objective import Batch
from dlmkit.errors import UsageError
from dlmkit.noise import Noise

_DOMAIN = 0x7E47


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, rows: int, length: int) -> tuple[NDArray[np.int64], int]:
    """(a permutation of ``rows`` rows, a phase in [0, length)) of one epoch.

    The permutation sorts numbers that depend on (seed, row, epoch) alone, so it is the same
    with every version of every library.
    """
    noise = Noise.keyed(seed, torch.arange(rows), epoch).fork(_DOMAIN)
    keys = noise.uniform(0, dtype=torch.float64)
    phase = int(noise.uniform(1, dtype=torch.float64)[0] * length)
    return torch.argsort(keys, stable=True).numpy(), phase


class PackedStream(Stream):
    """An endless stream over ``ids``: every epoch cuts the corpus anew and shuffles the rows.

    Row ``slot`` of ``step`` is item ``step * batch_size + slot`` of that stream. One epoch
    visits every token at most once and all but fewer than two rows of them.
    """

    def __init__(self, ids: NDArray[np.int32], length: int, seed: int, batch_size: int) -> None:
        self.ids = ids
        self.length = length
        self.seed = seed
        self.batch_size = batch_size
        self.rows = (len(ids) - length + 1) // length

    def read(self, step: int, slots: Tensor) -> Batch:
        items = step * self.batch_size + slots.numpy()
        starts = np.empty_like(items)
        for epoch in np.unique(items // self.rows):
            here = items // self.rows == epoch
            permutation, phase = order(self.seed, int(epoch), self.rows, self.length)
            starts[here] = permutation[items[here] % self.rows] * self.length + phase
        return batch(self.ids, starts, self.length)

    def state(self) -> Mapping[str, Any]:
        """Empty: a row follows from its step and slot."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore. Raises UsageError if there is."""
        if state:
            raise UsageError(f"this data keeps no state, but a checkpoint has {sorted(state)}")


def batch(ids: NDArray[np.int32], starts: NDArray[np.int64], length: int) -> Batch:
    """The rows of ``length`` tokens from ``starts``: full rows, so nothing is padding."""
    rows = torch.from_numpy(ids[starts[:, None] + np.arange(length)].astype(np.int64))
    return Batch(rows, torch.ones(rows.shape, dtype=torch.bool))


def spread(ids: NDArray[np.int32], length: int, count: int) -> NDArray[np.int64]:
    """Starts of ``count`` disjoint rows (or all, if fewer) spread evenly over ``ids``."""
    rows = len(ids) // length
    count = min(count, rows)
    return np.arange(count, dtype=np.int64) * rows // count * length

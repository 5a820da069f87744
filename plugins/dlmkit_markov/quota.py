"""The oracle among quotas: what may be written at once without changing a chain's texts."""

from __future__ import annotations

from typing import Any

import torch

from dlmkit.core.candidates import Candidates
from dlmkit.core.quota import Quota
from dlmkit.types import Ids, Mask


class Middle(Quota):
    """The middle position of every gap, whatever the order.

    Given the tokens that are written, what lies in different gaps of a Markov chain is
    independent: one token a gap is exact, and halving each gap needs the fewest evaluations, the
    logarithm of L + 1 to base 2, rounded up.
    """

    order = "masked:random"

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        masked, length = candidates.masked, candidates.masked.shape[1]
        place = torch.arange(length, device=masked.device).expand_as(masked)
        start = torch.where(masked, 0, place + 1).cummax(dim=1).values
        last = torch.where(masked, length - 1, place - 1).flip(1).cummin(dim=1).values.flip(1)
        middle = (start + last).div(2, rounding_mode="floor")
        return candidates.open & (place == middle), memory

"""Windows, which are written one after the other, and caches of keys and values by them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from dlmkit.types import Ids, Mask

Kind = Literal["exact", "prefix", "dual", "delayed"]


class Window(NamedTuple):
    """Stretches of ``size`` positions; nothing is written behind the first that has a mask.

    They are counted from a row's first position if ``aligned``, else from its first that is to be
    written.
    """

    size: int
    aligned: bool

    def numbers(self, generated: Mask) -> Ids:
        """The number of each position's window, (B, L); below 0 before the first."""
        place = torch.arange(generated.shape[1], device=generated.device).expand(generated.shape)
        if not self.aligned:
            place = place - torch.where(generated, place, place.shape[1]).amin(1, keepdim=True)
        return place.div(self.size, rounding_mode="floor")

    def now(self, masked: Mask, generated: Mask) -> Mask:
        """The positions (B, L) of the first window that has a mask; none where no window has."""
        number = self.numbers(generated)
        first = torch.where(masked, number, masked.shape[1]).amin(dim=1, keepdim=True)
        return number == first


class Cache(NamedTuple):
    """What is kept of a row between steps, and when it is computed anew.

    ``exact``: finished blocks of a network that attends block by block. The others are
    approximate: what is kept does not see what is written since. ``prefix`` keeps what stands
    before the window and ``dual`` what stands behind it too, both until the next window
    (Fast-dLLM, 2505.22618); ``delayed`` keeps a written token from the step after the first that
    has seen it, for ``refresh`` steps at most (dKV-Cache, 2505.15781).
    """

    kind: Kind
    window: Window | None
    refresh: int

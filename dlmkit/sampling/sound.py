"""Whether what a model predicts of a row are numbers: else no text can come of it."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmkit.types import Mask, Rows


def is_sound(values: Tensor, attend: Mask) -> Rows:
    """Per row, whether none of ``values`` (B, L, ...) at positions of its text is a NaN or plus
    infinity.

    Minus infinity is allowed: the logit of a token that is impossible.
    """
    if not values.is_floating_point():
        return torch.ones_like(attend[:, 0])
    sound: Rows = ((values < torch.inf).reshape(*attend.shape, -1).all(dim=2) | ~attend).all(dim=1)
    return sound

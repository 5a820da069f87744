"""Span masking: given positions come in runs."""

from __future__ import annotations

import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.masking import Masking, lowest, uniform_count
from dlmkit.noise import Noise
from dlmkit.types import Mask
from dlmkit_ddlm import configs


class SpanMasking(Masking):
    """The row is cut into runs of ``span`` positions at a random offset; whole runs are given.

    A uniform count of given positions is drawn first, then runs in random order until it is
    reached, the last one cut short. Our own definition: what DDLM masks is not public.
    """

    def __init__(self, config: configs.Span, context: BuildContext) -> None:
        self.span = config.span

    def draw(self, attend: Mask, noise: Noise) -> Mask:
        length = attend.shape[1]
        offset = (noise.uniform(1, dtype=torch.float64) * self.span).long()
        run = (torch.arange(length, device=attend.device) + offset[:, None]) // self.span
        keys = noise.uniform(2, (length // self.span + 2,), torch.float64)
        return lowest(keys.gather(1, run), attend, uniform_count(attend, noise))

"""The cosine schedule (2102.09672, equation 17), as SSD-LM uses it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit_ssd import configs


class Cosine(NoiseSchedule):
    """alpha = cos(pi / 2 (t + s) / (1 + s)) and sigma is the sine; t is uniform."""

    def __init__(self, config: configs.Cosine, context: BuildContext) -> None:
        super().__init__()
        self.t_min, self.t_max = 1.0 / config.steps, 1.0 - 1.0 / config.steps
        self.offset = config.offset

    def level(self, t: Tensor) -> Level:
        angle = 0.5 * math.pi * (t + self.offset) / (1.0 + self.offset)
        return Level(torch.cos(angle), torch.sin(angle))

    def inverse(self, ratio: Tensor) -> Tensor:
        return torch.atan(ratio) * (1.0 + self.offset) / (0.5 * math.pi) - self.offset

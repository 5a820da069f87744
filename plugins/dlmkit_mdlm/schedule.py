"""MDLM's schedule: the share of masked tokens is linear in time (2406.07524, appendix E.1)."""

from __future__ import annotations

from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit_mdlm import configs


class LogLinear(NoiseSchedule):
    """sigma = (1 - floor) t is the share of masked tokens and alpha the rest; t is uniform."""

    def __init__(self, config: configs.LogLinear, context: BuildContext) -> None:
        super().__init__()
        self.t_min, self.t_max = config.floor, 1.0
        self.rate = 1.0 - config.floor

    def level(self, t: Tensor) -> Level:
        masked = self.rate * t
        return Level(1.0 - masked, masked)

    def inverse(self, ratio: Tensor) -> Tensor:
        return ratio / (1.0 + ratio) / self.rate

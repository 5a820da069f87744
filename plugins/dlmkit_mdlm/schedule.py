"""MDLM's schedule: the share of masked tokens is linear in time (2406.07524, appendix E.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.core.tokens import masked_share
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


def masking_rate(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """m'(t) / m(t) of the masked share m: MDLM's weight -alpha' / (1 - alpha) (equation 10).

    By differentiation, so that any schedule will do; 1 / t for :class:`LogLinear`.
    """
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        log_share = masked_share(schedule.level(t)).log()
        (rate,) = torch.autograd.grad(log_share.sum(), t)
    return rate

"""Plaid's learned schedule (2305.18619, section 3; VDM, 2107.00630)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit_plaid import configs


class Monotone(NoiseSchedule):
    """gamma rises from one learned end to the other as a monotone network of t in [0, 1] says.

    The network is f(t) = sum_j o_j tanh(w_j (2 t - 1) + b_j), o and w positive. All are
    parameters, trained by whatever objective reads :meth:`shape` and ``ends``; t is uniform.
    """

    t_min, t_max = 0.0, 1.0

    def __init__(self, config: configs.Monotone, context: BuildContext) -> None:
        super().__init__()
        self.ends = nn.Parameter(torch.tensor([config.gamma_min, config.gamma_max]))
        self.inner = nn.Parameter(torch.randn(config.units))
        self.bias = nn.Parameter(torch.randn(config.units))
        self.outer = nn.Parameter(torch.randn(config.units))

    def shape(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(gamma's way from end to end at ``t``, from 0 to 1; its derivative)."""
        names = (self.inner, self.bias, self.outer)
        inner, bias, outer = (parameter.to(t.dtype) for parameter in names)
        inner, outer = F.softplus(inner), F.softplus(outer)

        def units(t: Tensor) -> Tensor:
            return torch.tanh(inner * (2.0 * t[..., None] - 1.0) + bias)

        here = units(t)
        with torch.autocast(t.device.type, enabled=False):
            low, high = units(torch.linspace(0.0, 1.0, 2, dtype=t.dtype, device=t.device)) @ outer
            slope = (1.0 - here.square()) @ (2.0 * inner * outer)
            share = here @ outer
        return (share - low) / (high - low), slope / (high - low)

    def level(self, t: Tensor) -> Level:
        low, high = self.ends.to(t.dtype)
        share, _ = self.shape(t)
        return Level.preserving(low + (high - low) * share)

"""MDLM's ancestral sampler (2406.07524, equation 7)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit.core.cache import Window
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.sampler import BoundDenoise, Sampler, Step
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import masked_share
from dlmkit.types import Mask
from dlmkit_mdlm import configs

UNCOVER, TOKEN = range(2)


class UnmaskingSampler(Sampler):
    """A masked token is uncovered with the chance 1 - m_next / m_here, m the masked share.

    What it becomes is drawn from the prediction; what is uncovered never changes. With ``window``
    this is done for one stretch of positions after the other (BD3-LM, 2503.09573, algorithm 2):
    those of a row that have something to write share its steps evenly, and of a stretch the share
    of masks falls linearly to none.
    """

    def __init__(self, config: configs.Unmasking, context: BuildContext) -> None:
        self.space = context.part("space")
        if config.window is not None:
            self.window = Window(config.window, aligned=True)
            schedule = context.part("schedule")
            with torch.no_grad():
                most = masked_share(schedule.level(torch.tensor(schedule.t_max).double()))
            self.most = float(most)

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        masked = x == self.space.corruption.mask
        here, allowed, stays = step.here, masked, None
        if self.window is not None:
            allowed, stays = _stretch(step, self.window.size)
            share = (masked & step.generated).sum(dim=1) / step.generated.sum(dim=1).clamp(min=1)
            share = share.to(here.sigma.dtype).clamp(max=self.most)
            here = Level(1.0 - share, share)  # as many tokens are masked as are
        prediction = denoise(x, here, step.previous)
        u = step.noise.uniform(UNCOVER, x.shape[1:], torch.float64)
        if stays is None:
            stays = masked_share(step.next.like(u)) / masked_share(step.here.like(u))
        uncovered = masked & allowed & (u >= stays)
        token = self.space.draw(prediction.query, uncovered, step.noise, TOKEN)
        return torch.where(uncovered, token, x), prediction, state


def _stretch(step: Step, window: int) -> tuple[Mask, Tensor]:
    """(the positions that are written now, the share of their masks that stays, float64[B, 1])."""
    generated = step.generated
    padded = F.pad(generated, (0, -generated.shape[1] % window))
    some = padded.unflatten(1, (-1, window)).any(dim=2)
    count = some.sum(dim=1, keepdim=True).clamp(min=1)
    index = step.index[:, None]
    now = (index * count).div(step.steps, rounding_mode="floor")
    here = some & (some.cumsum(dim=1) - 1 == now)
    end = ((now + 1) * step.steps + count - 1).div(count, rounding_mode="floor")
    left = (end - index).double()
    allowed = here.repeat_interleave(window, dim=1)[:, : generated.shape[1]] & generated
    return allowed, (left - 1.0) / left

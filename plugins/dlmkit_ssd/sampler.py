"""SSD-LM's decoding: project the prediction on a token, then noise it afresh (equation 9)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import Corruption
from dlmkit.core.sampler import BoundDenoise, Sampler, Step
from dlmkit.types import Probabilities
from dlmkit_ssd import configs

TOKEN, FRESH = range(2)


def nucleus(probabilities: Probabilities, top_p: float) -> Probabilities:
    """The likeliest tokens that together reach ``top_p``, unnormalised; at least one."""
    ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
    outside = ranked.cumsum(dim=-1) - ranked >= top_p
    outside[..., 0] = False
    return torch.zeros_like(ranked).scatter(-1, order, ranked.masked_fill(outside, 0.0))


def project(probabilities: Probabilities, top_p: float, u: Tensor) -> Tensor:
    """A token of each nucleus, as +1 and -1, drawn by uniform ``u`` (float64, Gumbel-max)."""
    chosen = nucleus(probabilities.double(), top_p).log() - torch.log(-torch.log(u))
    token = F.one_hot(chosen.argmax(dim=-1), probabilities.shape[-1])
    return (2.0 * token - 1.0).to(probabilities.dtype)


class Projection(Sampler):
    """x = alpha' projection + sigma' fresh noise: all of the old noise is thrown away.

    The step that ends clean returns the predicted x0 itself, whose likeliest token is read.
    """

    def __init__(self, config: configs.Projection, context: BuildContext) -> None:
        self.top_p = config.top_p
        self.corruption: Corruption = context.part("space").corruption

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        prediction = denoise(x, step.here, step.previous)
        probabilities = (0.5 * (prediction.x0_step + 1.0)).clamp(min=0.0)
        u = step.noise.uniform(TOKEN, x.shape[1:], torch.float64)
        projected = project(probabilities, self.top_p, u)
        renoised = self.corruption.corrupt(projected, step.next, step.noise.fork(FRESH))
        return rows.where(step.last, prediction.x0_step, renoised), prediction, state

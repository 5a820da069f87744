"""Samplers of the uniform state: the posterior's, and DUO's predictor-corrector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.sampler import BoundDenoise, Sampler, Step
from dlmkit.core.tokens import masked_share
from dlmkit_uniform import configs
from dlmkit_uniform.space import random_tokens

CHOICE, TOKEN, OTHER, AGAIN = range(4)


class PosteriorSampler(Sampler):
    """x0 is drawn from the prediction, then x_next from q(x_next | x, x0).

    q is that of D3PM's uniform state (2107.03006): x_next is x0, or x, or any token. Over all x0
    that is the step of UDLM and DUO: they put the prediction for x0 into q in place of x0
    (2506.10892, equations 4 and 5).
    """

    eta = 0.0

    def __init__(self, config: configs.Posterior, context: BuildContext) -> None:
        self.space, self.greedy_tail = context.part("space"), config.greedy_tail

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        prediction = denoise(x, step.here, step.previous)
        size, noise, shape = self.space.vocab_size, step.noise, x.shape[1:]
        u = noise.uniform(CHOICE, shape, torch.float64)
        kept, kept_next = (1.0 - masked_share(level.like(u)) for level in (step.here, step.next))
        over = kept / kept_next  # alpha at ``here`` given ``next``
        everywhere = torch.ones_like(x, dtype=torch.bool)
        token = self.space.draw(prediction.query, everywhere, noise, TOKEN)
        if self.greedy_tail:
            token = torch.where(step.last[:, None], prediction.x0_step, token)
        # in turn: any token, x itself, or else x0
        anew = (1.0 - over) * (1.0 - kept_next) / size
        stays = over * (1.0 - kept_next) / size
        total = anew + stays + (1.0 - over) * kept_next / size + torch.where(x == token, kept, 0.0)
        if self.eta:  # q(x_next | x0) instead: no part of it is x
            again = noise.uniform(AGAIN, shape, torch.float64) < self.eta
            anew = torch.where(again, 1.0 - kept_next, anew)
            stays = torch.where(again, 0.0, stays)
            total = torch.where(again, 1.0, total)
        other = random_tokens(noise, OTHER, shape, size)
        drawn = torch.where(u * total < anew + stays, x, token)
        return torch.where(u * total < anew, other, drawn), prediction, state


class PredictorCorrector(PosteriorSampler):
    """The Psi sampler (2602.21185): with the chance ``eta`` x_next is drawn from q(x_next | x0).

    It forgets x there, which lets tokens that were settled wrongly change. At 0 it is the
    ancestral sampler.
    """

    def __init__(self, config: configs.PredictorCorrector, context: BuildContext) -> None:
        super().__init__(config, context)
        self.eta = config.eta

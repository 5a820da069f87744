"""SEDD's samplers: all positions at once (2310.16834, section 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.options import Nothing
from dlmkit.core.sampler import BoundDenoise, Sampler, Step
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import loss_rate
from dlmkit.exact.bayes import log_likelihood
from dlmkit_sedd.graphs import graph_of, left_of

LEAVES, TOKEN = range(2)


class Tweedie(Sampler):
    """Theorem 4.2: the optimal step of every position by itself, of the posterior if scores are
    exact. A position goes to y with the chance q_next(y) / q_here(x) q(x | y), or else stays."""

    def __init__(self, config: Nothing, context: BuildContext) -> None:
        self.space, self.schedule = context.part("space"), context.part("schedule")
        self.graph = graph_of(self.space)

    def step(
        self, denoise: BoundDenoise, x: Tensor, step: Step, state: Any
    ) -> tuple[Tensor, Prediction, Any]:
        prediction = denoise(x, step.here, step.previous)
        said = log_likelihood(self.space, x, step.here)
        assert said is not None
        log_r = prediction.query.double() - torch.where(said.isfinite(), said, 0.0)
        there, amount = self.jump(step)
        log_chance = self.graph.log_rates(log_r, x, step.here, there)
        log_chance = log_chance + amount.log().view(-1, 1, 1)
        u = step.noise.uniform(LEAVES, x.shape[1:], torch.float64)
        leaves = u < log_chance.logsumexp(dim=-1).exp()
        token = self.space.draw(log_chance, leaves, step.noise, TOKEN)
        return torch.where(leaves, token, x), prediction, state

    def jump(self, step: Step) -> tuple[Level, Tensor]:
        """(the level at which q(y) is taken, how much of the rate a position goes by)."""
        left, after = (left_of(level).double() for level in (step.here, step.next))
        return step.next, 1.0 - left / after


class TauLeaping(Tweedie):
    """Euler's step by the rates at its start (equation 17), all positions at once. The step that
    ends clean is Tweedie's, as in their code.
    """

    def jump(self, step: Step) -> tuple[Level, Tensor]:
        there, exact = super().jump(step)
        here, after = (self.schedule.inverse(level.ratio) for level in (step.here, step.next))
        amount = (here - after) * loss_rate(self.schedule, here)
        there = rows.where(step.last, there, step.here)
        return there, torch.where(step.last, exact, amount.double())

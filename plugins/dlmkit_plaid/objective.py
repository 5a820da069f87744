"""Plaid's objective: the variational bound on the negative log-likelihood (2305.18619, section 2).

In nats per token it is prior + reconstruction + diffusion: the KL divergence of x at the highest
noise level from a standard normal, the cross-entropy of the token at the lowest, and the integral
over t of gamma'(t) / 2 exp(-gamma) |x0 - x0_hat|^2, with gamma = log(sigma^2 / alpha^2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import OutputPrior, Shown
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.schedule import Level
from dlmkit.types import Embedded, PerPosition
from dlmkit_plaid import configs
from dlmkit_plaid.schedule import Monotone

ROLE = 3
"""What a row's draw of its term is forked by."""


class LikelihoodBound(RecipeObjective):
    """An unbiased estimate of the bound. Each row draws which of its two costly terms it is.

    The ends of the schedule follow the bound. The network between them does not change it: it
    follows the variance of the diffusion term (VDM, 2107.00630), whose gradient is that of the
    term times twice its value. Rows that see a first prediction, all of them outside training,
    say nothing of the schedule.
    """

    schedule: Monotone

    def __init__(self, config: configs.Bound, context: BuildContext) -> None:
        super().__init__(context, config)
        self.self_conditioning, self.config = config.self_conditioning, config

    def denoise(self, strength: float | Tensor = 1.0) -> OutputPrior:
        return OutputPrior(self.space, self.network, self.self_conditioning > 0, strength)

    def shown(self, draws: Draws) -> Shown:
        """Where the bound is evaluated and not trained, all rows or none."""
        share = self.self_conditioning
        return draws.shown(share if self.training else float(share > 0))

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        t, config = self.schedule.quantile(draws.u), self.config
        seen = torch.arange(len(t), device=t.device) < self.shown(draws).rows
        lowest = draws.noise.fork(ROLE).uniform(0) < config.reconstruction
        share, slope = self.schedule.shape(t)
        low, high = self.schedule.ends
        gamma = torch.where(lowest, low, low + (high - low) * share)
        level = Level.preserving(torch.where(seen, gamma.detach(), gamma))
        noised = self.noised(batch, draws, level, self.denoise(draws.risen(config.ramp)))
        logits = self.space.logits(noised.query())
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        error = (noised.x0 - self.space.expect(logits.softmax(dim=-1))).square().sum(dim=-1)
        weight = (high - low) * slope * torch.exp(-gamma)
        weight = torch.where(seen, weight.detach(), weight)
        entropy = F.cross_entropy(logits.transpose(1, 2), batch.ids, reduction="none")
        terms = torch.where(
            lowest[:, None],
            entropy / config.reconstruction,
            0.5 * weight[:, None] * error / (1.0 - config.reconstruction),
        )
        parts = self.loss(terms + self._prior(noised.x0), noised)
        for value in (share, slope):
            if value.requires_grad:  # of the variance: that of the row's loss, times twice the loss
                value.register_hook(lambda gradient: gradient * (2.0 * parts.per_row))
        return parts

    def _prior(self, x0: Embedded) -> PerPosition:
        """KL(N(alpha x0, sigma^2) || N(0, 1)) at the highest noise level."""
        alpha, sigma = Level.preserving(self.schedule.ends[1])
        variance = sigma.square()
        terms = variance + (alpha * x0).square() - 1.0 - variance.log()
        return 0.5 * terms.sum(dim=-1)

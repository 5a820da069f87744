"""Plaid's objective: the variational bound on the negative log-likelihood (2305.18619, section 2).

In nats a token it is prior + reconstruction + diffusion: the KL divergence of x at the highest
noise level from a standard normal, the cross-entropy of the token at the lowest, and the integral
over t of gamma'(t) / 2 exp(-gamma) |x0 - x0_hat|^2, with gamma = log(sigma^2 / alpha^2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import OutputPrior
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.schedule import Level
from dlmkit.types import Embedded, PerPosition, PerRow
from dlmkit_plaid import configs
from dlmkit_plaid.schedule import Monotone

CORRUPTION, MASKING, ROLE = range(3)


class LikelihoodBound(RecipeObjective):
    """An unbiased estimate of the bound. Each row draws which of its two costly terms it is.

    The ends of the schedule follow the bound. The network between them does not change it: it
    follows the variance of the diffusion term (VDM, appendix H), whose gradient is that of the
    term times twice its value. Rows that see a first prediction, all of them outside training,
    say nothing of the schedule.
    """

    schedule: Monotone

    def __init__(self, config: configs.Bound, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config

    def denoise(self, strength: float | Tensor = 1.0) -> OutputPrior:
        feedback = self.config.self_conditioning > 0
        return OutputPrior(self.space, self.network, feedback, strength)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        given = self.given(batch, draws.noise.fork(MASKING))
        t = self.schedule.quantile(draws.u)
        shown = draws.shown(self._share())
        seen = torch.arange(len(t), device=t.device) < shown.rows
        lowest = draws.noise.fork(ROLE).uniform(0) < self.config.reconstruction
        gamma, slope, factor = self._gamma(t, lowest)
        level = Level.preserving(torch.where(seen, gamma.detach(), gamma))
        x0 = self.space.embed(batch.ids)
        x = self.space.corruption.corrupt(x0, level, draws.noise.fork(CORRUPTION))
        conditioning = Conditioning.of(x0, given, batch.attend)
        denoise = self.denoise(draws.risen(self.config.ramp))
        previous = denoise.first_predictions(shown, x, level, conditioning)
        logits = self.space.logits(denoise.query(x, level, previous, conditioning))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        error = (x0 - self.space.expect(logits.softmax(dim=-1))).square().sum(dim=-1)
        weight = slope * torch.exp(-gamma)
        weight = torch.where(seen, weight.detach(), weight)
        entropy = F.cross_entropy(logits.transpose(1, 2), batch.ids, reduction="none")
        share = self.config.reconstruction
        terms = torch.where(
            lowest[:, None], entropy / share, 0.5 * weight[:, None] * error / (1.0 - share)
        )
        noised = batch.attend & ~given
        totals = torch.where(noised, terms + self._prior(x0), 0.0).sum(dim=1)
        parts = LossParts.of(totals, given, batch.attend, t, self.schedule.pdf(t))
        factor.append(2.0 * parts.per_row)
        return parts

    def _gamma(self, t: PerRow, lowest: Tensor) -> tuple[PerRow, PerRow, list[Tensor]]:
        """(gamma, its slope, and a list for what its network's gradient is multiplied by)."""
        share, slope = self.schedule.shape(t)
        factor: list[Tensor] = []
        for value in (share, slope):
            if value.requires_grad:
                value.register_hook(lambda gradient: gradient * factor[0])
        low, high = self.schedule.ends
        gamma = torch.where(lowest, low, low + (high - low) * share)
        return gamma, (high - low) * slope, factor

    def _prior(self, x0: Embedded) -> PerPosition:
        """KL(N(alpha x0, sigma^2) || N(0, 1)) at the highest noise level."""
        alpha, sigma = Level.preserving(self.schedule.ends[1])
        variance = sigma.square()
        each = variance + (alpha * x0).square() - 1.0 - variance.log()
        return 0.5 * each.sum(dim=-1)

    def _share(self) -> float:
        """Of rows that see a first prediction: where the bound is evaluated, all or none."""
        share = self.config.self_conditioning
        return share if self.training else float(share > 0)

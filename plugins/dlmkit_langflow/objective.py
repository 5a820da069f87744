"""LangFlow's objective (2604.11748): cross-entropy, with a skip to the embedding table."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import OutputPrior
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit_langflow import configs

CORRUPTION, MASKING = range(2)


class SkippedCrossEntropy(RecipeObjective):
    """Cross-entropy of the noised tokens; the schedule weighs the noise levels.

    The logits get the noisy token's own likelihood, as in `plaid`, which rises over ``ramp`` steps.

    A ``self_conditioning`` share of the global batch sees a first prediction made without
    gradient, as in `cdcd`.
    """

    def __init__(self, config: configs.CrossEntropy, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config

    def denoise(self, strength: float | Tensor = 1.0) -> OutputPrior:
        feedback = self.config.self_conditioning > 0
        return OutputPrior(self.space, self.network, feedback, strength)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        given = self.given(batch, draws.noise.fork(MASKING))
        t = self.schedule.quantile(draws.u)
        level = self.schedule.level(t)
        x0 = self.space.embed(batch.ids)
        x = self.space.corruption.corrupt(x0, level, draws.noise.fork(CORRUPTION))
        conditioning = Conditioning.of(x0, given, batch.attend)
        denoise = self.denoise(draws.risen(self.config.ramp))
        shown = draws.shown(self.config.self_conditioning)
        previous = denoise.first_predictions(shown, x, level, conditioning)
        logits = self.space.logits(denoise.query(x, level, previous, conditioning)).float()
        entropy = F.cross_entropy(logits.transpose(1, 2), batch.ids, reduction="none")
        noised = batch.attend & ~given
        totals = torch.where(noised, entropy, 0.0).sum(dim=1)
        return LossParts.of(totals, given, batch.attend, t, self.schedule.pdf(t))

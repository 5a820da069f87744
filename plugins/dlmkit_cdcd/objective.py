"""CDCD's objective: cross-entropy of the tokens at noised positions (sections 3 and 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.types import PerRow
from dlmkit_cdcd import configs

CORRUPTION, MASKING, DROPOUT = range(3)


class ScoreInterpolation(RecipeObjective):
    """Score interpolation trained end to end by one loss, embeddings included.

    The mean embedding under the predicted distribution interpolates the score (equations 6 and
    8), so the cross-entropy alone trains it; given positions do not enter the loss. A
    ``self_conditioning`` share of the global batch sees a first prediction made without gradient;
    without any such row, sampling shows the network none either.
    """

    def __init__(self, config: configs.ScoreInterpolation, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config

    def denoise(self) -> ModelDenoise:
        return ModelDenoise(self.space, self.network, feedback=self.config.self_conditioning > 0)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        given = self.given(batch, draws.noise.fork(MASKING))
        t = self.schedule.quantile(draws.u)
        level = self.schedule.level(t)
        x0 = self.space.embed(batch.ids)
        x = self.space.corruption.corrupt(x0, level, draws.noise.fork(CORRUPTION))
        conditioning = self._drop(Conditioning.of(x0, given, batch.attend), draws)
        denoise = self.denoise()
        shown = draws.shown(self.config.self_conditioning)
        previous = denoise.first_predictions(shown, x, level, conditioning)
        logits = self.space.logits(denoise.query(x, level, previous, conditioning)).float()
        entropy = F.cross_entropy(logits.flatten(0, 1), batch.ids.flatten(), reduction="none")
        noised = batch.attend & ~given
        totals = torch.where(noised, entropy.view(batch.ids.shape), 0.0).sum(dim=1)
        return LossParts.of(totals, given, batch.attend, t, self.schedule.pdf(t))

    def _drop(self, conditioning: Conditioning, draws: Draws) -> Conditioning:
        if self.config.conditioning_dropout == 0:
            return conditioning
        dropped: PerRow = draws.noise.fork(DROPOUT).uniform(0)
        keep = (dropped >= self.config.conditioning_dropout)[:, None, None]
        return Conditioning(
            conditioning.given, torch.where(keep, conditioning.clean, 0.0), conditioning.attend
        )

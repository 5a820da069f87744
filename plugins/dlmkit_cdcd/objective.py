"""CDCD's objective: cross-entropy of the tokens at noised positions (sections 3 and 4)."""

from __future__ import annotations

import torch.nn.functional as F

from dlmkit.core.context import BuildContext
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit_cdcd import configs


class ScoreInterpolation(RecipeObjective):
    """Score interpolation trained end to end by one loss, embeddings included.

    The mean embedding under the predicted distribution interpolates the score (equations 6 and
    8), so the cross-entropy alone trains it; given positions do not enter the loss.
    """

    def __init__(self, config: configs.ScoreInterpolation, context: BuildContext) -> None:
        super().__init__(context, config)
        self.self_conditioning = config.self_conditioning

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised = self.noised(batch, draws)
        logits = self.space.logits(noised.query()).float()
        entropy = F.cross_entropy(logits.flatten(0, 1), batch.ids.flatten(), reduction="none")
        return self.loss(entropy.view(batch.ids.shape), noised)

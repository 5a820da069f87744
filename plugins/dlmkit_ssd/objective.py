"""SSD-LM's objective: cross-entropy of the tokens of one block (2210.17432, equation 6)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import WithoutFeedback
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit_ssd import configs

BLOCK = 3
"""What a row's draw of its block is forked by."""


class BlockCrossEntropy(RecipeObjective):
    """Cross-entropy at noised positions, all noise levels alike.

    With blocks, a row ends after one of its blocks, drawn uniformly, and all before that block
    is given; a share ``whole`` of the rows is left whole.
    """

    def __init__(self, config: configs.CrossEntropy, context: BuildContext) -> None:
        super().__init__(context, config)
        self.config = config

    def denoise(self) -> WithoutFeedback:
        return WithoutFeedback(self.space, self.network)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised = self.noised(self._block(batch, draws), draws)
        logits = noised.query().float().transpose(1, 2)
        return self.loss(F.cross_entropy(logits, batch.ids, reduction="none"), noised)

    def _block(self, batch: Batch, draws: Draws) -> Batch:
        """The rows up to the end of their blocks, what is before a block given."""
        if self.config.block is None:
            return batch
        size, noise, attend = self.config.block, draws.noise.fork(BLOCK), batch.attend
        blocks = torch.ceil(attend.sum(dim=1, keepdim=True) / size)
        start = size * torch.floor(noise.uniform(0)[:, None] * blocks)
        place = torch.arange(attend.shape[1], device=attend.device)
        whole = (noise.uniform(1) < self.config.whole)[:, None]
        before = attend & ~whole & (place < start)
        given = before if batch.given is None else before | batch.given
        return replace(batch, attend=attend & (whole | (place < start + size)), given=given)

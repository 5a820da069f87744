"""SSD-LM's objective: cross-entropy of the tokens of one block (2210.17432, equation 6)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise, Prediction
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.schedule import Level
from dlmkit.types import Mask
from dlmkit_ssd import configs

CORRUPTION, MASKING, BLOCK = range(3)


class SimplexDenoise(ModelDenoise):
    """The mean of the simplex under the prediction. It reads no previous prediction."""

    def __call__(
        self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning
    ) -> Prediction:
        query = self.query(x, level, previous, conditioning).to(x.dtype)
        x0, lse = self.space.read(query)
        return Prediction(x0, query, lse, x0, previous)


class CrossEntropy(RecipeObjective):
    """Cross-entropy at noised positions, all noise levels alike.

    With blocks, a row ends after one of its blocks, drawn uniformly, and all before that block
    is given; a share ``whole`` of the rows is left whole.
    """

    def __init__(self, config: configs.CrossEntropy, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config

    def denoise(self) -> SimplexDenoise:
        return SimplexDenoise(self.space, self.network)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        attend, before = self._block(batch.attend, draws)
        given = before | self.given(replace(batch, attend=attend), draws.noise.fork(MASKING))
        t = self.schedule.quantile(draws.u)
        level = self.schedule.level(t)
        x0, corruption = self.space.embed(batch.ids), self.space.corruption
        x = corruption.corrupt(x0, level, draws.noise.fork(CORRUPTION))
        conditioning = Conditioning.of(corruption.input(x0, level), given, attend)
        denoise = self.denoise()
        logits = denoise(x, level, denoise.start(x), conditioning).query.float()
        entropy = F.cross_entropy(logits.transpose(1, 2), batch.ids, reduction="none")
        noised = attend & ~given
        totals = torch.where(noised, entropy, 0.0).sum(dim=1)
        return LossParts.of(totals, given, attend, t, self.schedule.pdf(t))

    def _block(self, attend: Mask, draws: Draws) -> tuple[Mask, Mask]:
        """(positions up to the end of each row's block, those before the block)."""
        if self.config.block is None:
            return attend, torch.zeros_like(attend)
        size, noise = self.config.block, draws.noise.fork(BLOCK)
        blocks = torch.ceil(attend.sum(dim=1, keepdim=True) / size)
        start = size * torch.floor(noise.uniform(0)[:, None] * blocks)
        place = torch.arange(attend.shape[1], device=attend.device)
        whole = (noise.uniform(1) < self.config.whole)[:, None]
        return attend & (whole | (place < start + size)), attend & ~whole & (place < start)

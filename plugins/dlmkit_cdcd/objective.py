"""CDCD's objective: cross-entropy of the tokens at noised positions (sections 3 and 4)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Denoise, ModelDenoise, Prediction
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.schedule import Level
from dlmkit.rows import take
from dlmkit.types import Embedded, PerRow
from dlmkit_cdcd import configs

CORRUPTION, MASKING, DROPOUT = range(3)


class ScoreInterpolation(RecipeObjective):
    """Score interpolation trained end to end by one loss, embeddings included.

    The mean embedding under the predicted distribution interpolates the score (equations 6 and
    8), so the cross-entropy alone trains it; given positions do not enter the loss. The first
    ``self_conditioning`` share of a batch's rows sees a first prediction made without gradient:
    a fixed count, so that every process of a sharded run makes the same passes.
    """

    def __init__(self, config: configs.ScoreInterpolation, context: BuildContext) -> None:
        super().__init__(context)
        self.config = config

    def denoise(self) -> Denoise:
        model = ModelDenoise(self.space, self.network)
        return model if self.config.self_conditioning else _WithoutFeedback(model)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        given = self.masking.draw(batch.attend, draws.noise.fork(MASKING))
        t = self.schedule.quantile(draws.u)
        level = self.schedule.level(t)
        x0 = self.space.embed(batch.ids)
        x = self.space.corruption.corrupt(x0, level, draws.noise.fork(CORRUPTION))
        conditioning = self._drop(Conditioning.of(x0, given, batch.attend), draws)
        previous = self._first_predictions(x, level, conditioning)
        read = self.space.corruption.input(x, level)
        query = self.network(read, level, conditioning, previous)
        logits = self.space.logits(query).float()
        entropy = F.cross_entropy(logits.flatten(0, 1), batch.ids.flatten(), reduction="none")
        noised = batch.attend & ~given
        totals = torch.where(noised, entropy.view(batch.ids.shape), 0.0).sum(dim=1)
        return LossParts.of(totals, given, batch.attend, t, self.schedule.pdf(t))

    def _drop(self, conditioning: Conditioning, draws: Draws) -> Conditioning:
        dropped: PerRow = draws.noise.fork(DROPOUT).uniform(0)
        keep = (dropped >= self.config.conditioning_dropout)[:, None, None]
        return Conditioning(
            conditioning.given, torch.where(keep, conditioning.clean, 0.0), conditioning.attend
        )

    @torch.no_grad()
    def _first_predictions(self, x: Tensor, level: Level, conditioning: Conditioning) -> Embedded:
        denoise = ModelDenoise(self.space, self.network)
        previous: Tensor = denoise.start(x)
        rows = torch.arange(math.ceil(self.config.self_conditioning * len(x)), device=x.device)
        if len(rows):
            first = denoise(*take((x, level, previous, conditioning), rows))
            previous[: len(rows)] = first.feedback
        return previous


class _WithoutFeedback(Denoise):
    """A network that has never seen a prediction of its own is not shown one in sampling."""

    def __init__(self, inner: Denoise) -> None:
        self.inner = inner

    def start(self, x: Tensor) -> Any:
        return self.inner.start(x)

    def __call__(
        self, x: Tensor, level: Level, previous: Any, conditioning: Conditioning
    ) -> Prediction:
        return replace(self.inner(x, level, previous, conditioning), feedback=previous)

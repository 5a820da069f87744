"""ELF (2605.10938): flow matching on frozen embeddings, by prediction of the clean ones."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import ModelDenoise, Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning, ScoreNetwork
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.types import Query, Rows
from dlmkit_elf import plugin

ROLE = 3
"""What a row's draws of its loss are forked by."""


class LogitNormal(NoiseSchedule):
    """x = (1 - t) x0 + t noise, and the logit of 1 - t is normal: t is drawn in (0, 1)."""

    def __init__(self, config: plugin.LogitNormal, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        ends = self.quantile(torch.tensor([0.0, 1.0], dtype=torch.float64))
        self.t_min, self.t_max = ends.tolist()

    def level(self, t: Tensor) -> Level:
        return Level(1.0 - t, self.config.noise * t)

    def inverse(self, ratio: Tensor) -> Tensor:
        return ratio / (self.config.noise + ratio)

    def quantile(self, u: Tensor) -> Tensor:
        share = self.config.clip + u.double() * (1.0 - 2.0 * self.config.clip)
        logit: Tensor = self.config.std * torch.special.ndtri(share) - self.config.mean
        return torch.sigmoid(logit).to(u.dtype)

    def cdf(self, t: Tensor) -> Tensor:
        share: Tensor = torch.special.ndtr(self._standard(t))
        return ((share - self.config.clip) / (1.0 - 2.0 * self.config.clip)).to(t.dtype)

    def pdf(self, t: Tensor) -> Tensor:
        normal = torch.exp(-0.5 * self._standard(t).square()) / math.sqrt(2.0 * math.pi)
        slope = self.config.std * t.double() * (1.0 - t.double()) * (1.0 - 2.0 * self.config.clip)
        return (normal / slope).to(t.dtype)

    def _standard(self, t: Tensor) -> Tensor:
        logit: Tensor = torch.logit(t.double())
        return (logit + self.config.mean) / self.config.std


class SharedDecoder(ModelDenoise):
    """The network's answer is the embedding that is stepped to; its likeliest tokens are those of
    the tied read-out. At the ratio ``last`` or below, it is a decoder, which sees no prediction."""

    def __init__(
        self, space: EmbeddingSpace, network: ScoreNetwork, feedback: bool, last: Tensor
    ) -> None:
        super().__init__(space, network, feedback)
        self.last = last

    def decodes(self, level: Level) -> Rows:
        return level.ratio <= self.last * (1.0 + 1e-4)

    def query(self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning) -> Query:
        alone = rows.where(self.decodes(level), torch.zeros_like(previous), previous)
        return super().query(x, level, alone, conditioning)

    def __call__(
        self, x: Tensor, level: Level, previous: Tensor, conditioning: Conditioning
    ) -> Prediction:
        query = self.query(x, level, previous, conditioning)
        mean, lse = self.space.read(query)
        query = query.to(mean.dtype)
        x0 = rows.where(self.decodes(level), mean, query)
        x0 = torch.where(conditioning.given[..., None], conditioning.clean.to(x0.dtype), x0)
        return Prediction(x0, query, lse, mean, x0 if self.feedback else previous)


class XPrediction(RecipeObjective):
    """|x0_hat - x0|^2 / t^2, a channel's mean: the squared error of the velocity.

    Rows of a share ``decoder`` are decoded instead, at a cost of the tokens' cross-entropy: noised
    by a law of their own, and told to the network as the lowest level. Embeddings learn from that
    loss alone, if they do.
    """

    def __init__(self, config: plugin.XPrediction, context: BuildContext) -> None:
        super().__init__(context, config)
        self.config, self.self_conditioning = config, config.self_conditioning

    def denoise(self) -> SharedDecoder:
        device = next(self.network.parameters()).device
        t = torch.full((), self.schedule.t_min, dtype=torch.float64, device=device)
        last = self.schedule.level(t).ratio
        return SharedDecoder(self.space, self.network, self.self_conditioning > 0, last)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        config, noise, t = self.config, draws.noise.fork(ROLE), self.schedule.quantile(draws.u)
        decoded = noise.uniform(0, dtype=t.dtype) < config.decoder
        logit = config.decoder_mean + config.decoder_std * noise.normal(1, dtype=t.dtype)
        text = torch.sigmoid(logit)
        other = Level(text, config.decoder_noise * (1.0 - text))
        noised = self.noised(batch, draws, rows.where(decoded, other, self.schedule.level(t)))
        shown = self.schedule.level(torch.where(decoded, self.schedule.t_min, t))
        noised = replace(noised, level=shown)
        query = noised.query()
        error = (query - noised.x0.detach()).square().mean(dim=-1)
        error = error / (1.0 - shown.alpha).clamp(min=config.floor)[:, None].to(error).square()
        logits = self.space.logits(query).float().transpose(1, 2)
        entropy = F.cross_entropy(logits, batch.ids, reduction="none").to(error.dtype)
        parts = self.loss(torch.where(decoded[:, None], entropy, error), noised)
        return replace(parts, unconditional=parts.unconditional & ~decoded)

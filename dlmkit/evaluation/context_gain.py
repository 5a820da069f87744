"""Context gain: how much of a denoiser's cross-entropy is owed to the other positions.

A loss alone can look healthy while the model ignores its context, because the noisy embedding
of a position already tells much about that position. The gain is the cross-entropy of the exact
context-free Bayes denoiser minus the model's, on the same noisy rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.data import Data
from dlmkit.core.denoise import Denoise
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.evaluation import bayes
from dlmkit.noise import Noise
from dlmkit.types import Logits

LARGEST_BIGRAM = 300
"""Vocabularies up to this size also get the bigram denoiser, which costs L V^2 a row."""


@dataclass(frozen=True)
class Frequencies:
    """Smoothed token statistics of training text: p(v), and p(b | a) where V is small."""

    unigram: Float[Tensor, "V"]
    transition: Float[Tensor, "V V"] | None

    @staticmethod
    def count(data: Data, tokens: int = 2_000_000, rows: int = 512) -> Frequencies:
        """Counts over about ``tokens`` tokens of ``data``'s training rows."""
        size = data.tokenizer.vocab_size
        stream = data.stream(0, rows)
        unigram = torch.full((size,), 1e-2, dtype=torch.float64)
        small = size <= LARGEST_BIGRAM
        pairs = torch.full((size, size), 1e-2, dtype=torch.float64) if small else None
        seen, step = 0, 0
        while seen < tokens:
            batch = stream.read(step, torch.arange(rows))
            unigram += torch.bincount(batch.ids[batch.attend], minlength=size)
            if pairs is not None:
                both = batch.attend[:, :-1] & batch.attend[:, 1:]
                joint = batch.ids[:, :-1] * size + batch.ids[:, 1:]
                pairs += torch.bincount(joint[both], minlength=size * size).view(size, size)
            seen, step = seen + int(batch.attend.sum()), step + 1
        transition = None if pairs is None else (pairs / pairs.sum(dim=1, keepdim=True)).float()
        return Frequencies((unigram / unigram.sum()).float(), transition)


@dataclass(frozen=True)
class LevelReport:
    """Cross-entropies in nats per token at one noise-to-signal ratio, on the same noisy rows.

    Those of the exact denoisers are None where the corruption's likelihood is not known.
    """

    sigma: float
    model: float
    context_free: float | None
    bigram: float | None

    @property
    def gain(self) -> float | None:
        """Context gain of the model."""
        return None if self.context_free is None else self.context_free - self.model

    def record(self) -> dict[str, float | None]:
        """All numbers under their names, for a log."""
        return {**asdict(self), "gain": self.gain}


def sigmas(schedule: NoiseSchedule, count: int = 8) -> Float[Tensor, "count"]:
    """Noise-to-signal ratios log-spaced over the schedule's range, whatever its density."""
    ends = schedule.level(torch.tensor([schedule.t_min, schedule.t_max]))
    low, high = (ends.sigma / ends.alpha).log().tolist()
    return torch.linspace(low, high, count + 2)[1:-1].exp()


@torch.no_grad()
def context_gain(
    denoise: Denoise,
    space: EmbeddingSpace,
    schedule: NoiseSchedule,
    batch: Batch,
    frequencies: Frequencies,
    *,
    levels: Float[Tensor, "K"] | None = None,
    seed: int = 0,
    rows: int = 32,
) -> Iterator[LevelReport]:
    """One report a level, lowest noise first.

    Rows are unconditional and self-conditioned: a first prediction from zero is fed to a second,
    which is scored. The noise is keyed by (``seed``, row, level). ``rows`` are done at a time.
    """
    for index, sigma in enumerate(levels if levels is not None else sigmas(schedule)):
        totals = torch.zeros(3, dtype=torch.float64)
        for first in range(0, len(batch.ids), rows):
            part = Batch(batch.ids[first : first + rows], batch.attend[first : first + rows])
            key = torch.arange(first, first + len(part.ids), device=part.ids.device)
            totals += _scores(denoise, space, schedule, part, frequencies, sigma, seed, key, index)
        model, *others = (totals / batch.attend.sum().item()).tolist()
        free, chain = (None if math.isnan(value) else value for value in others)
        yield LevelReport(float(sigma), model, free, chain)


def _scores(
    denoise: Denoise,
    space: EmbeddingSpace,
    schedule: NoiseSchedule,
    batch: Batch,
    frequencies: Frequencies,
    sigma: Tensor,
    seed: int,
    rows: Tensor,
    index: int,
) -> Float[Tensor, "3"]:
    """Sums over the rows; not a number for an exact denoiser that there is not."""
    ratio = sigma.to(batch.ids.device).expand(len(rows))
    level = schedule.level(schedule.inverse(Level(torch.ones_like(ratio), ratio)))
    x0 = space.embed(batch.ids)
    x = space.corruption.corrupt(x0, level, Noise.keyed(seed, rows, index))
    read = space.corruption.input(x, level)
    nothing = Conditioning.of(read, torch.zeros_like(batch.attend), batch.attend)
    first = denoise(x, level, denoise.start(x), nothing)
    second = denoise(x, level, first.feedback, nothing)
    likelihood = bayes.log_likelihood(space, x, level)
    guesses = [space.logits(second.query)]
    if likelihood is not None:
        unigram = frequencies.unigram.to(likelihood)
        guesses.append(bayes.context_free(likelihood, unigram))
        if frequencies.transition is not None:
            transition = frequencies.transition.to(likelihood)
            guesses.append(bayes.bigram(likelihood, unigram, transition))
    sums = torch.full((3,), torch.nan, dtype=torch.float64)
    sums[: len(guesses)] = torch.stack([_cross_entropy(guess, batch) for guess in guesses]).cpu()
    return sums


def _cross_entropy(logits: Logits, batch: Batch) -> Tensor:
    each = F.cross_entropy(logits.float().transpose(1, 2), batch.ids, reduction="none")
    return torch.where(batch.attend, each, 0.0).sum().double()

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
from jaxtyping import Float, Int
from torch import Tensor

from dlmkit import devices
from dlmkit.core.data import Data
from dlmkit.core.denoise import Denoise
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.network import Conditioning
from dlmkit.core.objective import Batch
from dlmkit.core.schedule import NoiseSchedule
from dlmkit.exact import bayes
from dlmkit.exact.smoothing import interpolated
from dlmkit.noise import Noise
from dlmkit.rows import take
from dlmkit.types import Logits, Mask

LARGEST_BIGRAM = 300
"""Vocabularies up to this size also get the bigram denoiser, which costs L V^2 a row, unless
:meth:`Frequencies.count` is told to go further."""

LARGEST_TRIGRAM = 160
"""Vocabularies up to this size can have the trigram denoiser: L V^3 a row, V^3 numbers in all."""


@dataclass(frozen=True)
class Frequencies:
    """Smoothed token statistics of training text: p(v), p(b | a) where V is small, and p(c | a, b)
    where it was asked for and V is smaller still."""

    unigram: Float[Tensor, "V"]
    transition: Float[Tensor, "V V"] | None
    second: Float[Tensor, "V V V"] | None = None

    @staticmethod
    def count(
        data: Data,
        tokens: int = 2_000_000,
        rows: int = 512,
        order: int = 2,
        *,
        largest: int = LARGEST_BIGRAM,
        interpolate: bool = False,
    ) -> Frequencies:
        """Counts over about ``tokens`` tokens of ``data``'s training rows; ``order`` is 2 or 3.

        ``largest`` is the largest vocabulary that gets pairs. One and two tokens get 0.01 of a
        count more than they have, and three are mixed with two as
        :func:`dlmkit.exact.smoothing.interpolated` does; with ``interpolate`` two are mixed with
        one likewise, since 0.01 of thousands of tokens outweighs most contexts. That fit takes
        tokens that are read twice for two, so for it ``tokens`` should not exceed the training
        text.
        """
        size = data.tokenizer.vocab_size
        longest = 1 + (size <= largest) + (order > 2 and size <= LARGEST_TRIGRAM)
        counts = [torch.zeros(size**n, dtype=torch.float64) for n in range(1, longest + 1)]
        for batch in data.excerpt(tokens, rows):
            for n, table in enumerate(counts, start=1):
                table += _counted(batch, size, n)
        tables = [table.view([size] * n) for n, table in enumerate(counts, start=1)]
        pairs = None if longest < 2 else _shares(tables[1])
        if pairs is not None and interpolate:
            pairs = interpolated(tables[1], tables[0] + FLOOR).float()
        return Frequencies(
            _shares(tables[0]),
            pairs,
            interpolated(tables[2], tables[1] + FLOOR).float() if longest > 2 else None,
        )


FLOOR = 1e-2


def _shares(counts: Tensor) -> Tensor:
    return ((counts + FLOOR) / (counts + FLOOR).sum(dim=-1, keepdim=True)).float()


def _counted(batch: Batch, size: int, n: int) -> Int[Tensor, "grams"]:
    """How often each run of ``n`` tokens occurs, padding left out."""
    length = batch.ids.shape[1] - n + 1
    gram = torch.zeros_like(batch.ids[:, :length])
    real = torch.ones_like(gram, dtype=torch.bool)
    for place in range(n):
        gram = gram * size + batch.ids[:, place : place + length]
        real &= batch.attend[:, place : place + length]
    return torch.bincount(gram[real], minlength=size**n)


@dataclass(frozen=True)
class LevelReport:
    """Cross-entropies in nats per token at one noise-to-signal ratio, on the same noisy rows.

    Those of the exact denoisers are None where the corruption's likelihood is not known.
    """

    sigma: float
    model: float
    context_free: float | None
    bigram: float | None
    trigram: float | None = None

    @property
    def gain(self) -> float | None:
        """Context gain of the model."""
        return None if self.context_free is None else self.context_free - self.model

    def record(self) -> dict[str, float | None]:
        """All numbers under their names, for a log; the trigram's only where there is one."""
        known = {name: value for name, value in asdict(self).items() if name != "trigram"}
        more = {} if self.trigram is None else {"trigram": self.trigram}
        return {**known, **more, "gain": self.gain}


def sigmas(schedule: NoiseSchedule, count: int = 8) -> Float[Tensor, "count"]:
    """Noise-to-signal ratios log-spaced over the schedule's range, whatever its density."""
    times = torch.tensor([schedule.t_min, schedule.t_max], device=devices.of(schedule))
    ends = schedule.level(times)
    low, high = ends.ratio.log().tolist()
    return torch.linspace(low, high, count + 2)[1:-1].exp()


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
    """One report per level, lowest noise first, of what :class:`Denoised` measures."""
    steps = levels if levels is not None else sigmas(schedule)
    measured = Denoised(denoise, space, schedule, frequencies, seed, rows)
    for index, sigma in enumerate(steps):
        scores = measured.scores(batch, sigma, index)
        model, *others = (scores.sum(dim=0) / _noised(batch).sum().item()).tolist()
        yield LevelReport(float(sigma), model, *(None if math.isnan(v) else v for v in others))


@dataclass(frozen=True)
class Denoised:
    """A model and the exact denoisers of ``frequencies``, on the same noisy rows.

    Rows are unconditional, but for what the data gives, and self-conditioned: a first prediction
    from zero is fed to a second, which is scored. The noise is keyed by (``seed``, row, level).
    ``rows`` are done at a time.
    """

    denoise: Denoise
    space: EmbeddingSpace
    schedule: NoiseSchedule
    frequencies: Frequencies
    seed: int = 0
    rows: int = 32

    @torch.no_grad()
    def scores(self, batch: Batch, sigma: Tensor, index: int = 0) -> Float[Tensor, "B 4"]:
        """Nats of each whole row at one level, by the model and the three exact denoisers, in the
        order of :class:`LevelReport`; not a number for one that there is not. ``index`` keys the
        noise."""
        scores = []
        for first in range(0, len(batch.ids), self.rows):
            stop = min(first + self.rows, len(batch.ids))
            key = torch.arange(first, stop, device=batch.ids.device)
            noise = Noise.keyed(self.seed, key, index)
            scores.append(self._scores(take(batch, key), sigma, noise))
        return torch.cat(scores)

    def _scores(self, batch: Batch, sigma: Tensor, noise: Noise) -> Float[Tensor, "B 4"]:
        space, denoise = self.space, self.denoise
        ratio = sigma.to(batch.ids.device).expand(len(batch.ids))
        level = self.schedule.level(self.schedule.inverse(ratio))
        x0 = space.embed(batch.ids)
        x = space.corruption.corrupt(x0, level, noise)
        read = space.corruption.input(x, level)
        given, clean = torch.zeros_like(batch.attend), read
        if batch.given is not None:
            given, clean = batch.given, space.corruption.clean(x0)
        known = Conditioning.of(clean, given, batch.attend, batch.segments)
        first = denoise(x, level, denoise.start(x), known)
        second = denoise(x, level, first.feedback, known)
        likelihood = bayes.log_likelihood(space, x, level)
        guesses = [space.logits(second.query)]
        if likelihood is not None:
            # further rows of a space's table are no token of any text
            tokens = likelihood[..., : len(self.frequencies.unigram)]
            guesses += exact(tokens, self.frequencies)
        scores = torch.full((len(batch.ids), 4), torch.nan, dtype=torch.float64)
        for column, guess in enumerate(guesses):
            scores[:, column] = _cross_entropy(guess, batch).cpu()
        return scores


def exact(likelihood: Logits, frequencies: Frequencies) -> list[Logits]:
    """log p(token | x) by each exact denoiser that ``frequencies`` are known for, in order."""
    unigram = frequencies.unigram.to(likelihood)
    guesses = [bayes.context_free(likelihood, unigram)]
    if frequencies.transition is not None:
        transition = frequencies.transition.to(likelihood)
        guesses.append(bayes.bigram(likelihood, unigram, transition))
        if frequencies.second is not None:
            second = frequencies.second.to(likelihood)
            guesses.append(bayes.trigram(likelihood, unigram, transition, second))
    return guesses


def _cross_entropy(logits: Logits, batch: Batch) -> Float[Tensor, "B"]:
    nats = F.cross_entropy(logits.float().transpose(1, 2), batch.ids, reduction="none")
    return torch.where(_noised(batch), nats, 0.0).sum(dim=1).double()


def _noised(batch: Batch) -> Mask:
    return batch.attend if batch.given is None else batch.attend & ~batch.given

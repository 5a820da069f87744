"""Exact samples of an n-gram model without smoothing: what a model must beat.

    sampler = NgramSampler(data.texts("train"), order=2)     # a character bigram
    texts = sampler.sample(count=32, length=128, seed=0)

Text is read as a circle, so every context goes on. A sample's first symbols are drawn as they
occur in the text, so each position has the text's own unigram frequencies: the entropy of pooled
characters matches that of real text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dlmkit.noise import Noise
from dlmkit_text.ngrams import Grams, Ints, count
from dlmkit_text.pieces import SEPARATOR
from dlmkit_text.symbols import Alphabet

_DOMAIN = 0x4D


class NgramSampler:
    """Draws from the relative frequencies of ``order``-grams of characters, or what ``cut`` cuts.

    ``texts`` are joined by newlines. Samples are joined without spaces, as characters and pieces
    are. Text i of a seed is the same whatever the count.
    """

    def __init__(
        self, texts: Iterable[str], order: int, cut: Callable[[str], Sequence[str]] = list
    ) -> None:
        units = cut("".join(text + SEPARATOR for text in texts))
        if len(units) < order:
            raise ValueError(f"{len(units)} units are too few for {order}-grams")
        self.order = order
        self.alphabet = Alphabet(units)
        stream = self.alphabet.encode(units)
        circle = np.concatenate((stream, stream[: order - 1]))
        self.grams = count(circle, len(self.alphabet), order)

    def sample(self, count: int, length: int, seed: int, temperature: float = 1.0) -> list[str]:
        """``count`` texts of ``length`` units.

        Every unit is drawn from probabilities to the power 1 / ``temperature``, normalised.
        """
        noise = Noise.keyed(seed, torch.arange(count), 0).fork(_DOMAIN)
        u = noise.uniform(0, (length,), torch.float64).numpy()
        drawn = np.empty((count, length), dtype=np.int64)
        gram = np.zeros(count, dtype=np.int64)
        weights = [_shares(level) ** (1.0 / temperature) for level in self.grams]
        for position in range(length):
            at = min(position, self.order - 1)
            level = self.grams[at]
            gram = _draw(level.prefix, weights[at], gram, u[:, position])
            drawn[:, position] = level.last[gram]
            if position >= self.order - 1:
                gram = level.suffix[gram]
        return ["".join(self.alphabet.units[i] for i in row) for row in drawn]


def _shares(level: Grams) -> NDArray[np.float64]:
    """The relative frequency of each n-gram among those that begin alike."""
    shares: NDArray[np.float64] = (
        level.counts / np.bincount(level.prefix, level.counts)[level.prefix]
    )
    return shares


def _draw(
    prefix: Ints, weights: NDArray[np.float64], context: Ints, u: NDArray[np.float64]
) -> Ints:
    """An n-gram that begins with each context, with a probability proportional to its weight.

    ``prefix`` is sorted, so the n-grams of a context are neighbours.
    """
    ends = np.cumsum(weights)
    low = np.searchsorted(prefix, context, side="left")
    high = np.searchsorted(prefix, context, side="right") - 1
    before = np.where(low > 0, ends[low - 1], 0.0)
    target = before + u * (ends[high] - before)
    drawn: Ints = np.clip(np.searchsorted(ends, target, side="right"), low, high)
    return drawn

"""Rows of sentences by random access, and what a finite row lets one see of the grammar.

A row begins with a sentence and is cut at its length, so its last sentence may be incomplete.
Long sentences are cut more often: :func:`expected` says exactly what complete ones look like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlmkit.noise import Noise
from dlmkit_grammar.grammar import Grammar


class RowSampler:
    """Draws rows of ``length`` word indices (positions in ``grammar.words``)."""

    def __init__(self, grammar: Grammar, length: int) -> None:
        self.length = length
        patterns = grammar.patterns
        self.sizes = np.array([len(pattern.slots) for pattern in patterns])
        self.sentences = -(-length // int(self.sizes.min()))
        self._patterns = np.cumsum([pattern.weight for pattern in patterns])[:-1]
        widest = max(len(slot.probabilities) for p in patterns for slot in p.slots)
        shape = (len(patterns), int(self.sizes.max()), widest)
        self._words = np.zeros(shape, dtype=np.int64)
        self._bounds = np.ones(shape)
        index = {word: i for i, word in enumerate(grammar.words)}
        for i, pattern in enumerate(patterns):
            for j, slot in enumerate(pattern.slots):
                count = len(slot.probabilities)
                self._words[i, j, :count] = [index[word] for word in slot.probabilities]
                self._bounds[i, j, : count - 1] = np.cumsum([*slot.probabilities.values()])[:-1]

    def rows(self, noise: Noise) -> NDArray[np.int64]:
        """One row of each key of ``noise``, shape (B, length)."""
        longest = self._words.shape[1]
        u = noise.uniform(0, (self.sentences, 1 + longest), torch.float64).numpy()
        pattern = np.searchsorted(self._patterns, u[..., 0], side="right")
        chosen = (u[..., 1:, None] >= self._bounds[pattern]).sum(-1)
        words = np.take_along_axis(self._words[pattern], chosen[..., None], -1)[..., 0]
        beyond = np.arange(longest) >= self.sizes[pattern][..., None]
        shape = (len(words), -1)
        # a stable order of truth values: what is real comes first, as it stands
        first = beyond.reshape(shape).argsort(axis=1, kind="stable")[:, : self.length]
        return np.take_along_axis(words.reshape(shape), first, axis=1)


@dataclass(frozen=True)
class Expected:
    """What complete sentences of rows of one length show of the grammar itself, exactly.

    ``templates``: their shares. ``nll``: nats per word. ``covered``: the share of a row's words
    that lie in complete sentences.
    """

    templates: Mapping[str, float]
    nll: float
    covered: float


def expected(grammar: Grammar, length: int) -> Expected:
    """By renewal: a sentence starts at a position with the probability that one ended there.

    ``length`` must hold the shortest sentence.
    """
    ends = np.zeros(length + 1)
    ends[0] = 1.0
    for position in range(length):
        for pattern in grammar.patterns:
            if position + len(pattern.slots) <= length:
                ends[position + len(pattern.slots)] += ends[position] * pattern.weight
    counts = dict.fromkeys(grammar.templates, 0.0)
    nats = words = 0.0
    for pattern in grammar.patterns:
        count = pattern.weight * ends[: max(length - len(pattern.slots) + 1, 0)].sum()
        counts[pattern.template] += count
        nats += count * (pattern.entropy - np.log(pattern.weight))
        words += count * len(pattern.slots)
    total = sum(counts.values())
    shares = {template: float(count / total) for template, count in counts.items()}
    return Expected(shares, float(nats / words), float(words / length))


def keyed(seed: int, items: Tensor, domain: int) -> Noise:
    """The randomness of rows ``items`` (int64) of one domain (training, validation)."""
    return Noise.keyed(seed, items, 0).fork(domain)

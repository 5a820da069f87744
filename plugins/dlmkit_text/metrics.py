"""The metrics `ngram-judge` and `ngram-entropy`: likelihood, and what likelihood cannot see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlmkit.core.data import Data
from dlmkit.errors import DataError
from dlmkit_text.configs import NgramEntropy, NgramJudge
from dlmkit_text.cut import CutMetric
from dlmkit_text.judge import Floats, KneserNey
from dlmkit_text.pieces import SEPARATOR
from dlmkit_text.pooling import Pool, entropy
from dlmkit_text.symbols import Alphabet, words


class NgramJudgeMetric(CutMetric[NgramJudge, Floats]):
    """Nats under a Kneser-Ney model of the training text, each text read from its start.

    Low values mean likely text, not good text: repeating one likely phrase scores best of all.
    Read it beside the entropy, and beside what human text of the same size scores.
    """

    def fit(self, data: Data) -> None:
        """Count the training text. Raises DataError if it is shorter than the order."""
        super().fit(data)
        unit, order = self.config.unit, self.config.order
        units = [u for text in data.texts("train") for u in self.cut(text + SEPARATOR)]
        if len(units) < order:
            raise DataError(
                f"ngram-judge: {len(units)} {unit} of training text are too few for {order}-grams"
            )
        self.alphabet = Alphabet(units)
        self.model = KneserNey(self.alphabet.encode(units), len(self.alphabet), order)

    def table(self, texts: Sequence[str]) -> Floats:
        """A row per text: its nats, characters and units."""
        rows = [self.alphabet.encode(self.cut(text)) for text in texts]
        nats = [-self.model.log_probabilities(row).sum() if len(row) else 0.0 for row in rows]
        return np.array([nats, [*map(len, texts)], [*map(len, rows)]], dtype=np.float64).T

    def numbers(self, table: Floats, chosen: Sequence[int]) -> dict[str, float]:
        """``nll_per_character`` in nats; ``nll_per_token`` too if the unit is tokens.

        Empty for empty texts.
        """
        nats, characters, units = map(float, table[np.asarray(chosen, dtype=np.int64)].sum(axis=0))
        if not characters:
            return {}
        values = {"nll_per_character": nats / characters}
        return {**values, "nll_per_token": nats / units} if self.config.unit == "tokens" else values

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, math.inf


@dataclass(frozen=True)
class PooledGrams:
    """Pooled 1- and 4-grams, and of each text how many whole words it has, and known ones."""

    ones: Pool
    fours: Pool
    words: Sequence[tuple[int, int]]


class NgramEntropyMetric(CutMetric[NgramEntropy, PooledGrams]):
    """How varied texts are, and how many of their words exist.

    Both entropies grow with the amount of text: compare equal amounts only.
    """

    def fit(self, data: Data) -> None:
        """Learn the words of the training text."""
        super().fit(data)
        self.known = {word for text in data.texts("train") for word in words(text)}

    def table(self, texts: Sequence[str]) -> PooledGrams:
        rows = [self.cut(text) for text in texts]
        return PooledGrams(Pool(rows, 1), Pool(rows, 4), [self._words(text) for text in texts])

    def _words(self, text: str) -> tuple[int, int]:
        inner = [word for word in words(text)[1:-1] if word[0].isalpha()]
        return len(inner), sum(word in self.known for word in inner)

    def numbers(self, table: PooledGrams, chosen: Sequence[int]) -> dict[str, float]:
        """These; some miss for empty texts.

        entropy_1, entropy_4  entropy of the pooled 1- and 4-grams, in nats
        distinct_4            share of the 4-grams that are distinct
        real_words            share of words that occur in the training text, the first and the
                              last of each text left out, which may be cut
        """
        ones, fours = table.ones.counts(chosen), table.fours.counts(chosen)
        values = {}
        if len(ones):
            values["entropy_1"] = entropy(ones)
        if len(fours):
            values["entropy_4"] = entropy(fours)
            values["distinct_4"] = len(fours) / float(fours.sum())
        inner, known = (sum(table.words[i][k] for i in chosen) for k in (0, 1))
        if inner:
            values["real_words"] = known / inner
        return values

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, math.inf if name.startswith("entropy_") else 1.0

"""The metrics `ngram-judge` and `ngram-entropy`: likelihood, and what likelihood cannot see."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.metric import Measured, Metric
from dlmkit.errors import DataError
from dlmkit_text.configs import NgramEntropy, NgramJudge
from dlmkit_text.judge import Floats, KneserNey
from dlmkit_text.pieces import SEPARATOR
from dlmkit_text.symbols import Alphabet, cutter, words


def held_out(data: Data, texts: Sequence[str]) -> list[str]:
    """Validation text in as many stretches as ``texts``, each as long in characters.

    They are spread evenly and begin anywhere, as the rows of packed text do.
    """
    whole = SEPARATOR.join(data.texts("validation"))
    starts = [(len(whole) - len(text)) * i // max(len(texts), 1) for i, text in enumerate(texts)]
    return [whole[max(start, 0) :][: len(text)] for start, text in zip(starts, texts, strict=True)]


class NgramJudgeMetric(Metric):
    """Nats under a Kneser-Ney model of the training text, each text read from its start.

    Low values mean likely text, not good text: repeating one likely phrase scores best of all.
    Read it beside the entropy, and beside what human text of the same size scores.
    """

    def __init__(self, config: NgramJudge, context: BuildContext) -> None:
        self.unit = config.unit
        self.order = config.order

    def fit(self, data: Data) -> None:
        """Count the training text. Raises DataError if it is shorter than the order."""
        self.data = data
        self.cut = cutter(self.unit, data.tokenizer)
        units = [unit for text in data.texts("train") for unit in self.cut(text + SEPARATOR)]
        if len(units) < self.order:
            raise DataError(
                f"ngram-judge: {len(units)} {self.unit} of training text are too few for "
                f"{self.order}-grams"
            )
        self.alphabet = Alphabet(units)
        self.model = KneserNey(self.alphabet.encode(units), len(self.alphabet), self.order)

    def measure(self, texts: Sequence[str]) -> Mapping[str, float]:
        """``nll_per_character`` in nats; ``nll_per_token`` too if the unit is tokens.

        ``human_*`` are the same of as much validation text. Empty for empty texts.
        """
        return self.evaluate(texts).numbers

    def evaluate(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None
    ) -> Measured:
        """:meth:`measure`, reading every text once."""
        human = {f"human_{k}": v for k, v in self.score(held_out(self.data, texts)).items()}
        table = self._read(texts)
        return Measured(
            {**self._likelihood(table), **human}, lambda chosen: self._likelihood(table[chosen])
        )

    def score(self, texts: Sequence[str]) -> dict[str, float]:
        """The likelihood of ``texts`` alone."""
        return self._likelihood(self._read(texts))

    def _read(self, texts: Sequence[str]) -> Floats:
        """A row a text: its nats, characters and units."""
        rows = [self.alphabet.encode(self.cut(text)) for text in texts]
        nats = [-self.model.log_probabilities(row).sum() if len(row) else 0.0 for row in rows]
        return np.array([nats, [*map(len, texts)], [*map(len, rows)]], dtype=np.float64).T

    def _likelihood(self, table: Floats) -> dict[str, float]:
        nats, characters, units = map(float, table.sum(axis=0))
        if not characters:
            return {}
        found = {"nll_per_character": nats / characters}
        return {**found, "nll_per_token": nats / units} if self.unit == "tokens" else found


class NgramEntropyMetric(Metric):
    """How varied texts are, and how many of their words exist.

    Both entropies grow with the amount of text: compare equal amounts only.
    """

    def __init__(self, config: NgramEntropy, context: BuildContext) -> None:
        self.unit = config.unit

    def fit(self, data: Data) -> None:
        """Learn the words of the training text."""
        self.data = data
        self.cut = cutter(self.unit, data.tokenizer)
        self.known = {word for text in data.texts("train") for word in words(text)}

    def measure(self, texts: Sequence[str]) -> Mapping[str, float]:
        """These numbers, and ``human_*`` of as much validation text; some miss for empty texts.

        entropy_1, entropy_4  entropy of the pooled 1- and 4-grams, in nats
        distinct_4            share of the 4-grams that are distinct
        real_words            share of words that occur in the training text, the first and the
                              last of each text left out, which may be cut
        """
        return self.evaluate(texts).numbers

    def evaluate(
        self, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None
    ) -> Measured:
        """:meth:`measure`; the validation text is measured once."""
        human = {f"human_{k}": v for k, v in self.score(held_out(self.data, texts)).items()}
        return Measured(
            {**self.score(texts), **human}, lambda chosen: self.score([texts[i] for i in chosen])
        )

    def score(self, texts: Sequence[str]) -> dict[str, float]:
        """The numbers of ``texts`` alone."""
        rows = [self.cut(text) for text in texts]
        ones, fours = pooled(rows, 1), pooled(rows, 4)
        found = {}
        if ones:
            found["entropy_1"] = entropy(ones)
        if fours:
            found["entropy_4"] = entropy(fours)
            found["distinct_4"] = len(fours) / fours.total()
        inner = [w for text in texts for w in words(text)[1:-1] if w[0].isalpha()]
        if inner:
            found["real_words"] = sum(word in self.known for word in inner) / len(inner)
        return found


def pooled(rows: Iterable[Sequence[str]], n: int) -> Counter[tuple[str, ...]]:
    """The n-grams of all rows together."""
    return Counter(gram for row in rows for gram in zip(*(row[i:] for i in range(n)), strict=False))


def entropy(counts: Counter[tuple[str, ...]]) -> float:
    """Of the relative frequencies, in nats."""
    shares = np.fromiter(counts.values(), dtype=np.float64) / counts.total()
    return -math.fsum(shares * np.log(shares))

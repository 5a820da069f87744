"""The metric `grammar`: what samples are worth, from exact probabilities alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.metric import Metric
from dlmkit.errors import RecipeError
from dlmkit_grammar.configs import GrammarMetric
from dlmkit_grammar.data import GrammarData
from dlmkit_grammar.grammar import STOP, Grammar, Pattern
from dlmkit_grammar.rows import expected

SHARES = ("covered", "valid", "correct", "agreement", "agreement_chance", "template_distance")
"""The numbers between 0 and 1."""


@dataclass(frozen=True)
class Sentence:
    """A complete sentence of a sample: its pattern (None if invalid) and its log-probability."""

    words: tuple[str, ...]
    pattern: Pattern | None
    log_probability: float


class GrammarScore(Metric):
    """Scores rows of words, each row read from its start.

    A row is cut into sentences after every ".". What follows the last one is left out if it is
    the beginning of a valid sentence; anything else counts as an invalid sentence. Shares are of
    sentences unless said otherwise.
    """

    def __init__(self, config: GrammarMetric, context: BuildContext) -> None:
        self.floor = config.floor
        self.length = context.length

    def fit(self, data: Data) -> None:
        """Take the grammar of ``data``. Raises RecipeError if it is not the grammar's."""
        if not isinstance(data, GrammarData):
            raise RecipeError(
                "the metric grammar measures samples of the data grammar only, "
                f"but this recipe's data is {type(data).__name__}"
            )
        self.grammar = data.grammar
        self.expected = expected(data.grammar, self.length)

    def measure(self, texts: Sequence[str]) -> Mapping[str, float]:
        """These numbers; those in brackets only where some sentence allows them.

        sentences           complete sentences, and invalid remains
        covered             share of words in complete sentences; a text shorter than its row
                            has lost words (special tokens), which count as not covered
        covered_expected    the same for the grammar in rows of this length
        valid               share that fit a pattern, agreement ignored
        correct             share that fit with agreement: of positive probability
        [agreement]         share of the valid that agree
        [agreement_chance]  the same if agreement words followed their frequencies alone
        nll                 nats per word, the probability of a sentence being
                            (1 - floor) P(grammar) + floor (1 / words) ** length
        [nll_correct]       nats per word of the correct sentences
        nll_expected        nats per word of the grammar's complete sentences in such rows
        entropy_rate        nats per word of endless text
        [template_distance] total variation of the valid sentences' template shares from the
                            grammar's in rows of this length
        [template_noise]    about what that distance is for as many true sentences
        """
        sentences: list[Sentence] = []
        words = covered = 0
        for text in texts:
            valid, tail = self.split(text)
            sentences += valid
            written = sum(len(sentence.words) for sentence in valid) + len(tail)
            words += max(written, self.length)
            covered += sum(len(s.words) for s in valid if s.words[-1:] == (STOP,))
        return {
            "sentences": float(len(sentences)),
            "covered": covered / words if words else 0.0,
            "covered_expected": self.expected.covered,
            **self._shares(sentences),
            **self._likelihood(sentences),
            **self._templates(sentences),
        }

    def bounds(self, name: str) -> tuple[float, float]:
        return 0.0, 1.0 if name in SHARES else math.inf

    def split(self, text: str) -> tuple[list[Sentence], tuple[str, ...]]:
        """(the sentences of a row, its cut last sentence if that could go on validly)."""
        sentences: list[Sentence] = []
        words: list[str] = []
        for word in text.split():
            words.append(word)
            if word == STOP:
                sentences.append(self._sentence(tuple(words)))
                words = []
        if words and not self.grammar.begins(words):
            return [*sentences, self._sentence(tuple(words))], ()
        return sentences, tuple(words)

    def _sentence(self, words: tuple[str, ...]) -> Sentence:
        return Sentence(words, self.grammar.match(words), self.grammar.log_probability(words))

    def _shares(self, sentences: Sequence[Sentence]) -> dict[str, float]:
        valid = [sentence for sentence in sentences if sentence.pattern is not None]
        correct = sum(sentence.log_probability > -math.inf for sentence in valid)
        count = max(len(sentences), 1)
        shares = {"valid": len(valid) / count, "correct": correct / count}
        if valid:
            shares["agreement"] = correct / len(valid)
            chances = [sentence.pattern.chance for sentence in valid if sentence.pattern]
            shares["agreement_chance"] = sum(chances) / len(valid)
        return shares

    def _likelihood(self, sentences: Sequence[Sentence]) -> dict[str, float]:
        known = {
            "entropy_rate": self.grammar.entropy_rate,
            "nll_expected": self.expected.nll,
        }
        correct = [s for s in sentences if s.log_probability > -math.inf]
        if correct:
            nats = -sum(sentence.log_probability for sentence in correct)
            known["nll_correct"] = nats / sum(len(sentence.words) for sentence in correct)
        nats = sum(floored(s, self.grammar, self.floor) for s in sentences)
        length = sum(len(sentence.words) for sentence in sentences)
        # no sentence at all is the worst there is: every word uniformly random
        known["nll"] = nats / length if length else math.log(len(self.grammar.words))
        return known

    def _templates(self, sentences: Sequence[Sentence]) -> dict[str, float]:
        counts = Counter(s.pattern.template for s in sentences if s.pattern is not None)
        if not (total := counts.total()):
            return {}
        shares = self.expected.templates
        distance = 0.5 * sum(abs(counts[name] / total - p) for name, p in shares.items())
        noise = 0.5 * sum(
            math.sqrt(2.0 * p * (1.0 - p) / (math.pi * total)) for p in shares.values()
        )
        return {"template_distance": distance, "template_noise": noise}


def floored(sentence: Sentence, grammar: Grammar, floor: float) -> float:
    """-log((1 - floor) P + floor (1 / words) ** length), in nats."""
    random = math.log(floor) - len(sentence.words) * math.log(len(grammar.words))
    if sentence.log_probability == -math.inf:
        return -random
    true = math.log1p(-floor) + sentence.log_probability
    return -max(true, random) - math.log1p(math.exp(-abs(true - random)))

"""A finite mixture of patterns, each a sequence of independent word choices: all of it exact.

A pattern is a template with its subject's category (and whether it has an adjective) decided.
No sentence belongs to two patterns, so entropies and probabilities are sums without overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

STOP = "."


@dataclass(frozen=True)
class WordSlot:
    """One word of a pattern. ``forms`` are the words that fit when agreement is ignored."""

    probabilities: Mapping[str, float]
    forms: frozenset[str]

    @cached_property
    def entropy(self) -> float:
        """In nats."""
        return -sum(p * math.log(p) for p in self.probabilities.values())


def word(text: str) -> WordSlot:
    """A fixed word."""
    return WordSlot({text: 1.0}, frozenset({text}))


def agreeing(text: str, forms: Iterable[str]) -> WordSlot:
    """The word that agrees with the subject, out of ``forms``."""
    return WordSlot({text: 1.0}, frozenset(forms))


def choice(weights: Mapping[str, float]) -> WordSlot:
    """One of several words, with probabilities proportional to ``weights``."""
    total = sum(weights.values())
    return WordSlot({text: w / total for text, w in weights.items()}, frozenset(weights))


@dataclass(frozen=True)
class Pattern:
    """``weight`` is its probability; ``chance`` that its agreement holds whatever the subject.

    ``chance`` is the probability of this pattern's agreement words among the sentences of its
    template: how often a writer agrees who knows the words' frequencies but not the subject.
    """

    template: str
    weight: float
    slots: tuple[WordSlot, ...]
    chance: float

    def fits(self, words: Sequence[str]) -> bool:
        """Whether ``words`` are this pattern, or its beginning, agreement ignored."""
        return len(words) <= len(self.slots) and all(
            word in slot.forms for word, slot in zip(words, self.slots, strict=False)
        )

    def log_probability(self, words: Sequence[str]) -> float:
        """Of ``words``, which fit, given this pattern; minus infinity if agreement fails."""
        total = 0.0
        for text, slot in zip(words, self.slots, strict=True):
            if text not in slot.probabilities:
                return -math.inf
            total += math.log(slot.probabilities[text])
        return total

    @property
    def entropy(self) -> float:
        """Of a sentence given this pattern, in nats."""
        return sum(slot.entropy for slot in self.slots)


@dataclass(frozen=True)
class Grammar:
    """Sentences drawn independently of each other; each ends with the word "."."""

    patterns: tuple[Pattern, ...]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every word that occurs in some sentence, sorted."""
        return tuple(sorted({w for p in self.patterns for s in p.slots for w in s.forms}))

    @cached_property
    def templates(self) -> Mapping[str, float]:
        """The probability of each template."""
        names = dict.fromkeys(pattern.template for pattern in self.patterns)
        return {n: sum(p.weight for p in self.patterns if p.template == n) for n in names}

    @cached_property
    def entropy(self) -> float:
        """Of one sentence, in nats: of the pattern, plus of its words given the pattern."""
        return sum(p.weight * (p.entropy - math.log(p.weight)) for p in self.patterns)

    @cached_property
    def mean_length(self) -> float:
        """Words of a sentence, its "." included."""
        return sum(p.weight * len(p.slots) for p in self.patterns)

    @property
    def entropy_rate(self) -> float:
        """In nats per word: sentences are independent and "." says where they end."""
        return self.entropy / self.mean_length

    @cached_property
    def agreement_chance(self) -> float:
        """The share of sentences whose agreement holds by luck, subject ignored."""
        return sum(p.weight * p.chance for p in self.patterns)

    def match(self, words: Sequence[str]) -> Pattern | None:
        """The pattern that a sentence belongs to, agreement ignored; None if it is invalid."""
        fitting = (p for p in self.patterns if len(p.slots) == len(words) and p.fits(words))
        return next(fitting, None)

    def begins(self, words: Sequence[str]) -> bool:
        """Whether ``words`` are the beginning of some sentence, agreement ignored."""
        return any(len(words) < len(p.slots) and p.fits(words) for p in self.patterns)

    def log_probability(self, words: Sequence[str]) -> float:
        """Of a sentence, in nats; minus infinity if it is invalid or does not agree."""
        pattern = self.match(words)
        if pattern is None:
            return -math.inf
        return math.log(pattern.weight) + pattern.log_probability(words)

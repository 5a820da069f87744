"""The toy language: its numbers against enumeration, its patterns against each other."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmkit_grammar.grammar import Grammar, Pattern, agreeing, choice, word
from dlmkit_grammar.lexicon import GRAMMAR
from dlmkit_grammar.rows import RowSampler, keyed


def small() -> Grammar:
    """Three patterns of few words, so that every sentence can be listed."""
    who, does = choice({"ann": 3.0, "eve": 1.0}), choice({"runs": 1.0, "sits": 2.0, "eats": 4.0})
    he = agreeing("he", ("he", "she"))
    she = agreeing("she", ("he", "she"))
    return Grammar(
        (
            Pattern("plain", 0.5, (who, does, word(".")), 1.0),
            Pattern("so", 0.3, (who, does, word("so"), she, does, word(".")), 0.6),
            Pattern("so", 0.2, (word("bob"), does, word("so"), he, does, word(".")), 0.4),
        )
    )


def listed(grammar: Grammar) -> dict[tuple[str, ...], float]:
    """Every sentence with its probability, by multiplication."""
    found: dict[tuple[str, ...], float] = {}
    for pattern in grammar.patterns:
        for parts in itertools.product(*(slot.probabilities.items() for slot in pattern.slots)):
            words = tuple(text for text, _ in parts)
            assert words not in found
            found[words] = pattern.weight * math.prod(p for _, p in parts)
    return found


def test_entropy_and_length_are_those_of_the_listed_sentences():
    grammar, sentences = small(), listed(small())
    assert math.fsum(sentences.values()) == pytest.approx(1.0, abs=1e-12)
    entropy = -math.fsum(p * math.log(p) for p in sentences.values())
    assert grammar.entropy == pytest.approx(entropy, abs=1e-12)
    length = math.fsum(p * len(words) for words, p in sentences.items())
    assert grammar.entropy_rate == pytest.approx(entropy / length, abs=1e-12)
    for words, p in sentences.items():
        assert grammar.log_probability(words) == pytest.approx(math.log(p), abs=1e-12)


def test_agreement_is_told_from_validity():
    grammar = small()
    wrong = ("bob", "runs", "so", "she", "sits", ".")
    assert grammar.match(wrong) is not None
    assert grammar.log_probability(wrong) == -math.inf
    assert grammar.match(("bob", "runs", "so", "ann", "sits", ".")) is None
    assert grammar.agreement_chance == pytest.approx(0.5 + 0.3 * 0.6 + 0.2 * 0.4)


def test_beginnings():
    grammar = small()
    assert grammar.begins(())
    assert grammar.begins(("bob", "runs", "so", "she"))
    assert not grammar.begins(("ann", "runs", "."))
    assert not grammar.begins(("runs",))


def test_weights_are_probabilities():
    assert math.fsum(p.weight for p in GRAMMAR.patterns) == pytest.approx(1.0, abs=1e-12)
    for pattern in GRAMMAR.patterns:
        for slot in pattern.slots:
            assert math.fsum(slot.probabilities.values()) == pytest.approx(1.0, abs=1e-12)
            assert slot.forms >= set(slot.probabilities)
            assert min(slot.probabilities.values()) > 0.0


def test_no_sentence_has_two_derivations_even_if_agreement_is_ignored():
    for a, b in itertools.combinations(GRAMMAR.patterns, 2):
        if len(a.slots) == len(b.slots):
            assert any(x.forms.isdisjoint(y.forms) for x, y in zip(a.slots, b.slots, strict=True))


def test_the_size_that_the_documentation_names():
    assert len(GRAMMAR.words) == 142
    assert len(GRAMMAR.templates) == 5
    assert GRAMMAR.entropy_rate == pytest.approx(1.3700766, abs=1e-6)
    assert GRAMMAR.agreement_chance == pytest.approx(0.308, abs=1e-9)


def test_chance_is_how_often_borrowed_agreement_words_fit():
    """Draw pairs of patterns of one template: the second one's agreement words on the first."""
    total = 0.0
    for name, share in GRAMMAR.templates.items():
        members = [p for p in GRAMMAR.patterns if p.template == name]
        for subject, words in itertools.product(members, members):
            fits = _agreement_words(subject) == _agreement_words(words)
            total += fits * subject.weight * words.weight / share
    assert GRAMMAR.agreement_chance == pytest.approx(total, abs=1e-12)


def _agreement_words(pattern: Pattern) -> list[str]:
    return [
        next(iter(slot.probabilities))
        for slot in pattern.slots
        if len(slot.forms) > len(slot.probabilities)
    ]


SAMPLER = RowSampler(GRAMMAR, 32)


def sentence(item: int) -> list[str]:
    """The first sentence of a row."""
    row = SAMPLER.rows(keyed(5, torch.tensor([item]), 0))[0]
    words = [GRAMMAR.words[index] for index in row]
    return words[: words.index(".") + 1]


@given(st.integers(0, 10_000), st.integers(0, 20), st.sampled_from(GRAMMAR.words))
def test_a_word_put_where_it_cannot_stand_is_detected(item: int, position: int, new: str):
    words = sentence(item)
    pattern = GRAMMAR.match(words)
    assert pattern is not None
    position %= len(words)
    words[position] = new
    allowed = new in pattern.slots[position].probabilities
    assert (GRAMMAR.log_probability(words) > -math.inf) == allowed

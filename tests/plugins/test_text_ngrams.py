"""N-grams: counts and Kneser-Ney against plain Python, samplers against their frequencies."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmkit_acceptance.ngram_texts import NgramSampler
from dlmkit_text.judge import KneserNey
from dlmkit_text.ngrams import count, locate
from dlmkit_text.symbols import Alphabet, words

TEXT = (
    "the rain in spain falls mainly on the plain, and the drain on the lane is plain to see. " * 2
)
ALPHABET = Alphabet(TEXT)
STREAM = ALPHABET.encode(TEXT)

streams = st.lists(st.integers(0, 3), min_size=8, max_size=60).map(np.array)


def listed(stream: np.ndarray, n: int) -> Counter[tuple[int, ...]]:
    return Counter(tuple(stream[i : i + n].tolist()) for i in range(len(stream) - n + 1))


@given(streams)
def test_counts_and_suffixes_are_those_of_a_plain_counter(stream: np.ndarray):
    grams = count(stream, 4, 3)
    names: list[list[tuple[int, ...]]] = [[()]]
    for n, level in enumerate(grams, start=1):
        pairs = zip(level.prefix, level.last, strict=True)
        names.append([(*names[-1][prefix], int(last)) for prefix, last in pairs])
        assert dict(zip(names[-1], level.counts.tolist(), strict=True)) == listed(stream, n)
        shorter = [names[-2][i] for i in level.suffix]
        assert shorter == [name[1:] for name in names[-1]]


def test_locate_finds_what_was_counted_and_nothing_else():
    grams = count(np.array([0, 1, 2, 0, 1]), 3, 3)
    ones, twos, threes = locate(grams, np.array([0, 1, 2, 2, -1, 0]))
    assert ones.tolist() == [0, 1, 2, 2, -1, 0]
    assert (twos >= 0).tolist() == [False, True, True, False, False, False]
    assert (threes >= 0).tolist() == [False, False, True, False, False, False]


@settings(max_examples=30, deadline=None)
@given(streams, st.lists(st.integers(-1, 3), max_size=6), st.integers(1, 5))
def test_probabilities_sum_to_one_after_any_context(
    stream: np.ndarray, context: list[int], order: int
):
    model = KneserNey(stream.astype(np.int64), 4, order)
    distribution = model.distribution(np.array(context, dtype=np.int64))
    assert distribution.min() > 0.0
    assert distribution.sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("context", ["", "t", "the ", "the pla", "zzz", "\x00", " on the"])
def test_probabilities_of_characters_sum_to_one(context: str):
    model = KneserNey(STREAM, len(ALPHABET), 6)
    assert model.distribution(ALPHABET.encode(context)).sum() == pytest.approx(1.0, abs=1e-9)


def reference(stream: list[int], size: int, order: int, context: list[int], symbol: int) -> float:
    """Modified Kneser-Ney by recursion over dictionaries."""

    def counts(n: int) -> dict[tuple[int, ...], int]:
        if n == order:
            return dict(listed(np.array(stream), n))
        return dict(Counter(gram[1:] for gram in listed(np.array(stream), n + 1)))

    def probability(n: int, history: tuple[int, ...]) -> float:
        if n == 0:
            return 1.0 / (size + 1)
        table = counts(n)
        number = Counter(table.values())
        if min(number[1], number[2], number[3], number[4]) == 0:
            discount = [0.0, 0.5, 0.5, 0.5]
        else:
            y = number[1] / (number[1] + 2 * number[2])
            discount = [0.0] + [
                min(max(c - (c + 1) * y * number[c + 1] / number[c], 0.01), c) for c in (1, 2, 3)
            ]
        lower = probability(n - 1, history[1:])
        here = {gram: c for gram, c in table.items() if gram[:-1] == history}
        total = sum(here.values())
        if not total:
            return lower
        own = here.get((*history, symbol), 0)
        mass = sum(discount[min(c, 3)] for c in here.values())
        return (own - discount[min(own, 3)]) / total + mass / total * lower

    n = min(order, len(context) + 1)
    return probability(n, tuple(context[len(context) - n + 1 :]))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_kneser_ney_is_the_textbook_recursion(order: int):
    model = KneserNey(STREAM, len(ALPHABET), order)
    probe = ALPHABET.encode("on the spain planes, zip")
    found = model.log_probabilities(probe)
    for i in range(len(probe)):
        context = probe[:i].tolist()
        wanted = reference(STREAM.tolist(), len(ALPHABET), order, context, int(probe[i]))
        assert found[i] == pytest.approx(math.log(wanted), abs=1e-10)


def test_more_context_makes_training_text_likelier():
    nats = [
        -KneserNey(STREAM, len(ALPHABET), order).log_probabilities(STREAM).mean()
        for order in (1, 2, 3, 6)
    ]
    assert nats == sorted(nats, reverse=True)
    assert nats[-1] < 0.5 < 2.0 < nats[0]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_samples_hold_only_grams_of_the_text_at_their_own_frequencies(order: int):
    sampler = NgramSampler([TEXT], order)
    samples = sampler.sample(count=400, length=50, seed=3)
    circle = TEXT + "\n" + (TEXT + "\n")[: order - 1]
    allowed = listed(Alphabet(circle).encode(circle), order)
    drawn: Counter[str] = Counter()
    for text in samples:
        assert len(text) == 50
        assert set(listed(sampler.alphabet.encode(text), order)) <= set(allowed)
        drawn.update(text)
    for character, number in Counter(TEXT + "\n").items():
        share = number / (len(TEXT) + 1)
        # neighbouring draws depend on each other: hence more than the binomial error
        assert drawn[character] / 20_000 == pytest.approx(share, abs=8 * math.sqrt(share / 20_000))


def test_conditional_frequencies_are_the_texts():
    """After "a" this text goes on with "b" three times in four."""
    sampler = NgramSampler(["abacabab"] * 50, order=2)
    drawn = Counter(
        text[i + 1] for text in sampler.sample(300, 40, 0) for i in range(39) if text[i] == "a"
    )
    assert set(drawn) == {"b", "c"}
    assert drawn["b"] / drawn.total() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_is_a_power_of_probabilities(temperature: float):
    sampler = NgramSampler(["abacabab"] * 50, order=2)
    texts = sampler.sample(300, 40, 0, temperature)
    drawn = Counter(text[i + 1] for text in texts for i in range(39) if text[i] == "a")
    odds = (0.75 / 0.25) ** (1.0 / temperature)
    assert drawn["b"] / drawn.total() == pytest.approx(odds / (1.0 + odds), abs=0.03)


def test_a_sample_depends_on_its_seed_and_place_alone():
    sampler = NgramSampler([TEXT], 2)
    assert sampler.sample(2, 30, 1) == sampler.sample(5, 30, 1)[:2]
    assert sampler.sample(2, 30, 1) != sampler.sample(2, 30, 2)
    assert NgramSampler([TEXT], 2).sample(1, 30, 1)[0] == "n s in fals in, the. the s lai"


def test_too_little_text_for_the_order():
    with pytest.raises(ValueError, match="3-grams"):
        NgramSampler(["a"], 3)


def test_words_keep_apostrophes_and_split_punctuation():
    assert words("don't stop, 'tis_1.") == ["don't", "stop", ",", "'", "tis", "_", "1", "."]

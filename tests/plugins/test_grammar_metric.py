"""The grammar's metric: perfect, careless and broken writers."""

import math

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.errors import RecipeError
from dlmkit_grammar.configs import GrammarMetric, GrammarRows
from dlmkit_grammar.data import GrammarData
from dlmkit_grammar.grammar import Pattern
from dlmkit_grammar.lexicon import CATEGORIES, GRAMMAR
from dlmkit_grammar.metric import GrammarScore, Sentence, floored

CONTEXT = BuildContext(length=32)
GOOD = "at dawn ada washed herself in the barn ."
DISAGREES = "at dawn ada washed himself in the barn ."
BROKEN = "at dawn ada washed the in the barn ."


@pytest.fixture(scope="module")
def data() -> GrammarData:
    return GrammarData(GrammarRows(), CONTEXT)


@pytest.fixture(scope="module")
def metric(data: GrammarData) -> GrammarScore:
    made = GrammarScore(GrammarMetric(), CONTEXT)
    made.fit(data)
    return made


def test_the_grammar_itself_is_perfect(data: GrammarData, metric: GrammarScore):
    found = metric.measure(list(data.texts("validation")))
    assert found["valid"] == found["correct"] == found["agreement"] == 1.0
    assert found["nll_correct"] == pytest.approx(found["nll_expected"], abs=0.02)
    assert found["covered"] == pytest.approx(found["covered_expected"], abs=0.01)
    assert found["template_distance"] < 3 * found["template_noise"] < 0.06
    assert all(isinstance(value, float) for value in found.values())


def test_shares_of_a_known_row(metric: GrammarScore):
    found = metric.measure([f"{GOOD} {DISAGREES} {BROKEN} at dawn ada washed them"])
    assert found["sentences"] == 4.0
    assert found["valid"] == 0.5
    assert found["correct"] == 0.25
    assert found["agreement"] == 0.5
    assert found["agreement_chance"] == pytest.approx(CATEGORIES["she"])
    assert found["covered"] == pytest.approx(27 / 32)
    good = -GRAMMAR.log_probability(GOOD.split())
    assert found["nll_correct"] == pytest.approx(good / 9)


def test_a_cut_end_is_not_held_against_a_row(metric: GrammarScore):
    assert metric.measure([f"{GOOD} at dawn ada washed himself"])["valid"] == 1.0
    assert metric.measure([f"{GOOD} at dawn ada washed ada"])["valid"] == 0.5
    sentences, tail = metric.split(f"{GOOD} at dawn")
    assert len(sentences) == 1
    assert tail == ("at", "dawn")


def test_lost_words_are_not_covered(metric: GrammarScore):
    assert metric.measure([GOOD])["covered"] == pytest.approx(9 / 32)


def test_a_writer_that_ignores_the_subject_agrees_by_chance(
    data: GrammarData, metric: GrammarScore
):
    """Each sentence gets the agreement words of the one before it of the same template."""
    before: dict[str, list[str]] = {}
    written = []
    for text in data.texts("validation"):
        for sentence in metric.split(text)[0]:
            assert sentence.pattern is not None
            words, places = list(sentence.words), agreement_places(sentence.pattern)
            own = [words[place] for place in places]
            for place, other in zip(
                places, before.get(sentence.pattern.template, own), strict=True
            ):
                words[place] = other
            before[sentence.pattern.template] = own
            written.append(" ".join(words))
    found = metric.measure(written)
    assert found["valid"] == 1.0
    error = math.sqrt(0.25 / found["sentences"])
    assert found["agreement"] == pytest.approx(found["agreement_chance"], abs=4 * error)


def agreement_places(pattern: Pattern) -> list[int]:
    """Where the words stand that agree with the subject."""
    slots = enumerate(pattern.slots)
    return [place for place, slot in slots if len(slot.forms) > len(slot.probabilities)]


def test_one_sentence_for_ever_is_seen_by_the_template_distance(metric: GrammarScore):
    found = metric.measure([f"{GOOD} {GOOD} {GOOD} at dawn ada washed herself"] * 20)
    assert found["correct"] == 1.0
    assert found["template_distance"] > 0.8 > 0.2 > found["template_noise"]


def test_nothing_and_noise_have_no_likelihood_of_their_own(metric: GrammarScore):
    for texts in ([], [""], [BROKEN]):
        found = metric.measure(texts)
        assert "nll_correct" not in found
        assert "template_distance" not in found
        assert found["nll"] > 4.5
        assert all(math.isfinite(value) for value in found.values())


def test_the_floor_mixes_in_uniform_words():
    words = tuple(GOOD.split())
    exact = GRAMMAR.log_probability(words)
    sentence = Sentence(words, GRAMMAR.match(words), exact)
    mixed = 0.8 * math.exp(exact) + 0.2 * 142.0 ** -len(words)
    assert floored(sentence, GRAMMAR, 0.2) == pytest.approx(-math.log(mixed), abs=1e-12)
    invalid = Sentence(("the", "."), None, -math.inf)
    assert floored(invalid, GRAMMAR, 0.2) == pytest.approx(-math.log(0.2 / 142**2), abs=1e-12)


class OtherData(Data):
    """Some other data, of which the metric knows nothing."""

    def stream(self, seed: int, batch_size: int):
        raise AssertionError("never read")

    def validation(self, count: int):
        raise AssertionError("never read")

    def texts(self, split: str):
        raise AssertionError("never read")


def test_other_data_is_refused():
    with pytest.raises(RecipeError, match="OtherData"):
        GrammarScore(GrammarMetric(), CONTEXT).fit(OtherData())


def test_samples_are_rows_of_ids(data: GrammarData, metric: GrammarScore):
    """What a model writes reaches the metric through the tokenizer: padding is dropped."""
    row = data.validation(1).ids[0].tolist()
    assert row == data.tokenizer.encode(data.tokenizer.decode(row))
    row[3] = data.tokenizer.pad_id
    assert metric.measure([data.tokenizer.decode(row)])["correct"] < 1.0
    assert torch.tensor(row).shape == (32,)

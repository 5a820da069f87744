"""Rows of the toy language: random access, determinism, and exact expectations."""

import math

import numpy as np
import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.errors import DataError, RecipeError, UsageError
from dlmkit_grammar.configs import GrammarRows
from dlmkit_grammar.data import GrammarData
from dlmkit_grammar.lexicon import GRAMMAR
from dlmkit_grammar.rows import RowSampler, expected, keyed

ALL = torch.arange(16)


def data(length: int = 32, **options: int) -> GrammarData:
    return GrammarData(GrammarRows(**options), BuildContext(length=length))


def sentences(count: int, length: int = 32) -> tuple[list[list[str]], list[list[str]]]:
    """(complete sentences, cut ends) of ``count`` rows."""
    complete, ends = [], []
    for row in RowSampler(GRAMMAR, length).rows(keyed(1, torch.arange(count), 2)):
        words: list[str] = []
        for index in row:
            words.append(GRAMMAR.words[index])
            if words[-1] == ".":
                complete.append(words)
                words = []
        ends.append(words)
    return complete, ends


def test_a_row_is_pinned():
    ids = data().stream(0, 4).read(0, torch.tensor([0]))
    assert data().tokenizer.decode(ids.ids[0].tolist()) == (
        "edgar mailed his ribbon to the farmers . bella sold her lamp to ada . while helga "
        "waited , she carried the basket . the badger found the lamp because it was"
    )


def test_every_sentence_is_correct_and_every_end_a_beginning():
    complete, ends = sentences(500)
    assert all(GRAMMAR.log_probability(words) > -math.inf for words in complete)
    assert all(GRAMMAR.begins(words) for words in ends)


def test_mean_nll_of_drawn_sentences_is_the_exact_entropy():
    """First sentences of rows are not cut, so they are draws from the grammar itself."""
    rows = RowSampler(GRAMMAR, 11).rows(keyed(1, torch.arange(4000), 2))
    first = []
    for row in rows:
        words = [GRAMMAR.words[index] for index in row]
        first.append(words[: words.index(".") + 1])
    nats = np.array([-GRAMMAR.log_probability(words) for words in first])
    lengths = np.array([len(words) for words in first])
    error = (nats - GRAMMAR.entropy_rate * lengths).std() / math.sqrt(len(nats))
    assert nats.mean() == pytest.approx(GRAMMAR.entropy, abs=4 * nats.std() / math.sqrt(4000))
    assert nats.sum() / lengths.sum() == pytest.approx(
        GRAMMAR.entropy_rate, abs=4 * error / lengths.mean()
    )


@pytest.mark.parametrize("length", [16, 32])
def test_expectations_of_finite_rows_match_draws(length: int):
    rows = 1500
    complete, _ = sentences(rows, length)
    wanted = expected(GRAMMAR, length)
    for name, share in wanted.templates.items():
        drawn = sum(GRAMMAR.match(s).template == name for s in complete) / len(complete)
        assert drawn == pytest.approx(share, abs=4 * math.sqrt(share / len(complete)))
    nats = np.array([-GRAMMAR.log_probability(words) for words in complete])
    words = sum(map(len, complete))
    error = nats.std() * math.sqrt(len(nats)) / words
    assert nats.sum() / words == pytest.approx(wanted.nll, abs=4 * error)
    assert words / (rows * length) == pytest.approx(wanted.covered, abs=0.01)


def test_long_rows_show_the_grammar_itself():
    wanted = expected(GRAMMAR, 4000)
    assert wanted.nll == pytest.approx(GRAMMAR.entropy_rate, abs=1e-4)
    assert wanted.templates == pytest.approx(GRAMMAR.templates, abs=1e-3)
    assert wanted.covered == pytest.approx(1.0, abs=2e-3)


def test_slots_are_read_in_any_order_and_split():
    stream = data().stream(7, 16)
    whole = stream.read(3, ALL).ids
    assert torch.equal(stream.read(3, ALL.flip(0)).ids, whole.flip(0))
    assert torch.equal(data().stream(7, 16).read(3, ALL[5:9]).ids, whole[5:9])


def test_seed_step_and_split_make_other_rows():
    rows = {
        tuple(row)
        for batch in (
            data().stream(0, 16).read(0, ALL),
            data().stream(1, 16).read(0, ALL),
            data().stream(0, 16).read(1, ALL),
            data().validation(16),
        )
        for row in batch.ids.tolist()
    }
    assert len(rows) == 64


def test_a_fixed_number_of_rows_repeats():
    stream = data(rows=24).stream(0, 16)
    first = torch.cat([stream.read(0, ALL).ids, stream.read(1, ALL[:8]).ids])
    assert torch.equal(torch.cat([stream.read(1, ALL[8:]).ids, stream.read(2, ALL).ids]), first)
    texts = list(data(rows=24).texts("train"))
    assert len(set(texts)) == 24
    assert texts[:24] == [data().tokenizer.decode(row) for row in first.tolist()]


def test_rows_are_full_and_within_the_vocabulary():
    batch = data(40).validation(8)
    assert batch.ids.shape == (8, 40)
    assert batch.attend.all()
    assert batch.ids.min() >= 2
    assert batch.ids.max() < data().tokenizer.vocab_size == 144


def test_text_round_trip():
    made = data()
    for text in list(made.texts("validation"))[:50]:
        assert made.tokenizer.decode(made.tokenizer.encode(text)) == text
    assert made.tokenizer.decode(made.tokenizer.encode("At dawn, Ada slept.")) == (
        "at dawn , ada slept ."
    )


def test_unknown_words_and_splits_are_refused():
    with pytest.raises(DataError, match="zebra"):
        data().tokenizer.encode("the zebra slept .")
    with pytest.raises(DataError, match="'test'"):
        next(data().texts("test"))


def test_too_short_a_length_is_refused():
    with pytest.raises(RecipeError, match="length is 8"):
        data(8)


def test_a_foreign_tokenizer_in_the_folder_is_refused(tmp_path):
    context = BuildContext(length=32, folder=tmp_path)
    made = data()
    made.tokenizer.save(tmp_path)
    assert GrammarData(GrammarRows(), context).tokenizer.pieces() == made.tokenizer.pieces()
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace('"ada"', '"adam"'))
    with pytest.raises(DataError, match="another version"):
        GrammarData(GrammarRows(), context)


def test_there_is_no_state_to_restore():
    stream = data().stream(0, 4)
    stream.restore(stream.state())
    with pytest.raises(UsageError, match="position"):
        stream.restore({"position": 3})

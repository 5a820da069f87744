"""Points from counts: exact counts, information, singular vectors, words of known classes."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dlmkit.core.context import BuildContext
from dlmkit.core.counts import information, neighbours, singular_points, start_from_counts
from dlmkit.core.data import Data, Stream
from dlmkit.core.objective import Batch
from dlmkit.core.options import Counts
from dlmkit.errors import DataError
from dlmkit_grammar import lexicon
from dlmkit_grammar.configs import GrammarRows
from dlmkit_grammar.data import GrammarData, tokenizer

SIZE = 7


def batch(rows: list[list[int]], length: int) -> Batch:
    """Rows of ids, padded with 0."""
    padded = [row + [0] * (length - len(row)) for row in rows]
    attend = [[True] * len(row) + [False] * (length - len(row)) for row in rows]
    return Batch(torch.tensor(padded), torch.tensor(attend))


ROWS = [[1, 2, 3, 1, 2, 4], [2, 2, 5], [4], [3, 1, 4, 4, 1, 3]]


class Repeated(Data):
    """The same rows for ever, with the grammar's tokenizer."""

    def __init__(self, rows, length):
        self.tokenizer = tokenizer(lexicon.GRAMMAR)
        self.rows, self.length = rows, length

    def stream(self, seed, batch_size):
        rows, length = self.rows, self.length

        class Rows(Stream):
            def read(self, step, slots):
                items = step * batch_size + slots
                return batch([rows[int(i) % len(rows)] for i in items], length)

            def state(self):
                return {}

            def restore(self, state):
                pass

        return Rows()

    def validation(self, count):
        return batch(self.rows[:count], self.length)

    def texts(self, split):
        return iter(())


@pytest.fixture(scope="module")
def grammar():
    return GrammarData(GrammarRows(), BuildContext(length=32))


def table_of(data, dim=32, rows=None, seed=3, std=0.1, **options):
    """A random table, and the same turned towards counts."""
    torch.manual_seed(seed)
    before = torch.randn(rows or data.tokenizer.vocab_size, dim) * std
    after = before.clone()
    start_from_counts(after, data, Counts(**{"tokens": 100_000, **options}))
    return before, after


@pytest.mark.parametrize("window", [1, 2, 5, 9])
def test_neighbours_are_counted_by_distance_and_never_across_padding(window):
    expected = Counter()
    for row in ROWS:
        for i, left in enumerate(row):
            for distance, right in enumerate(row[i + 1 :], start=1):
                if distance <= window:
                    expected[left, right] += 1.0 / distance
    result = neighbours([batch(ROWS[:2], 6), batch(ROWS[2:], 6)], SIZE, window).to_dense()
    for a in range(SIZE):
        for b in range(SIZE):
            assert result[a, b].item() == pytest.approx(expected[a, b])


def test_many_batches_are_summed_as_one(monkeypatch):
    whole = neighbours([batch(ROWS, 6)], SIZE, 3)
    monkeypatch.setattr("dlmkit.core.counts._PAIRS", 1)
    parts = neighbours([batch([row], 6) for row in ROWS], SIZE, 3)
    torch.testing.assert_close(parts.to_dense(), whole.to_dense())


@pytest.mark.parametrize("smoothing", [1.0, 0.75])
def test_information_is_the_logarithm_of_how_much_likelier_a_context_is(smoothing):
    near = neighbours([batch(ROWS, 6)], SIZE, 2)
    counts = near.to_dense().numpy()
    both = np.concatenate((counts, counts.T), axis=1)
    power = both.sum(axis=0) ** smoothing
    result = information(near, smoothing).to_dense().numpy()
    assert result.shape == (SIZE, 2 * SIZE)
    for token in range(SIZE):
        for context in range(2 * SIZE):
            expected = 0.0
            if both[token, context]:
                given = both[token, context] / both[token].sum()
                expected = max(0.0, math.log(given / (power[context] / power.sum())))
            assert result[token, context] == pytest.approx(expected, abs=1e-12)
    assert (result > 0).any()


def dense_points(matrix, dim):
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    points = left[:, :dim] * np.sqrt(values[:dim])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points -= points.mean(axis=0)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def random_matrix(rows, columns):
    generator = torch.Generator().manual_seed(5)
    dense = torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    return dense * (dense > 0.6)


def test_points_are_those_of_the_dense_singular_value_decomposition():
    matrix = random_matrix(20, 40)
    result = singular_points(matrix.to_sparse(), 10).numpy()
    expected = dense_points(matrix.numpy(), 10)
    np.testing.assert_allclose(result @ result.T, expected @ expected.T, atol=1e-9)


def test_fewer_points_than_the_text_has_dimensions_come_near_the_dense_ones(grammar):
    near = neighbours(grammar.excerpt(20_000), grammar.tokenizer.vocab_size, 5)
    matrix = information(near, 0.75)
    known = matrix.to_dense().any(dim=1)
    assert known.sum() > 2 * 2 * 16  # the method holds twice as many vectors as it gives
    result = singular_points(matrix, 16)[known].numpy()
    expected = dense_points(matrix.to_dense()[known].numpy(), 16)
    np.testing.assert_allclose(result @ result.T, expected @ expected.T, atol=1e-3)


def test_points_do_not_depend_on_the_order_of_tokens_and_contexts():
    """Nor on signs, which another order of the contexts would draw anew."""
    matrix = random_matrix(20, 40)
    tokens, contexts = torch.randperm(20), torch.randperm(40)
    result = singular_points(matrix.to_sparse(), 10)
    other = singular_points(matrix[tokens][:, contexts].to_sparse(), 10)
    torch.testing.assert_close(other, result[tokens], atol=1e-9, rtol=0)


def test_more_channels_than_tokens_end_in_zeros():
    result = singular_points(random_matrix(5, 10).to_sparse(), 8)
    assert result.shape == (5, 8)
    assert (result[:, 5:] == 0).all()


CLASSES = [
    lexicon.WOMEN,
    lexicon.MEN,
    lexicon.ANIMALS,
    lexicon.GROUPS,
    lexicon.ADJECTIVES,
    lexicon.HAPPENED,
    lexicon.DID,
    lexicon.GAVE,
    lexicon.SELF_VERBS,
    lexicon.THINGS,
    lexicon.PLACES,
    lexicon.FEELINGS,
    lexicon.TIMES,
    lexicon.NEAR,
]


def neighbours_of_one_class(data, table):
    """The share of words whose nearest other word is of their class."""
    classes = {word: i for i, words in enumerate(CLASSES) for word in words.split()}
    words = list(classes)
    ids = [data.tokenizer.encode(word)[0] for word in words]
    points = F.normalize(table[ids], dim=1)
    nearest = (points @ points.T).fill_diagonal_(-1.0).argmax(dim=1)
    same = [classes[words[j]] == classes[word] for word, j in zip(words, nearest, strict=True)]
    return sum(same) / len(same)


def test_words_of_one_class_become_neighbours(grammar):
    before, after = table_of(grammar)
    assert neighbours_of_one_class(grammar, before) < 0.2
    assert neighbours_of_one_class(grammar, after) == 1.0


def test_words_that_follow_each_other_are_no_neighbours(grammar):
    """Left and right contexts are apart: "the" and what follows it share few of them."""
    points = F.normalize(table_of(grammar)[1], dim=1)
    the, at = (grammar.tokenizer.encode(word)[0] for word in ("the", "at"))
    nouns = [grammar.tokenizer.encode(word)[0] for word in lexicon.THINGS.split()]
    times = [grammar.tokenizer.encode(word)[0] for word in lexicon.TIMES.split()]
    assert (points[nouns] @ points[the]).max() < 0.5
    assert (points[times] @ points[at]).max() < 0.5


def test_the_size_of_the_random_rows_is_kept(grammar):
    before, after = table_of(grammar, dim=64)
    sizes = [table.square().sum(dim=1).mean().sqrt().item() for table in (before, after)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.03)


def test_tokens_without_neighbours_stay_as_they_were(grammar):
    """Padding, the unknown token, and the row of a mask after the vocabulary's."""
    size = grammar.tokenizer.vocab_size
    before, after = table_of(grammar, rows=size + 1)
    kept = [grammar.tokenizer.pad_id, grammar.tokenizer.unknown_id, size]
    assert torch.equal(after[kept], before[kept])
    changed = (after != before).any(dim=1)
    assert changed.sum() == size + 1 - len(kept)


def test_a_token_that_the_text_lacks_stays_as_it_was():
    data = Repeated([[2, 3, 4, 2, 3, 5], [5, 4, 6, 3]], 6)
    before, after = table_of(data, dim=4, tokens=1000)
    assert (after != before).any(dim=1).nonzero()[:, 0].tolist() == [2, 3, 4, 5, 6]


def test_tokens_with_the_same_neighbours_are_not_one_point():
    data = Repeated([[2, 3, 4, 2], [2, 5, 4, 2], [4, 4, 6, 2, 6]], 6)
    for seed in range(5):
        points = F.normalize(table_of(data, dim=16, tokens=1000, seed=seed)[1], dim=1)
        assert 0.9 < (points[3] @ points[5]).item() < 0.999


def test_counting_twice_gives_equal_bits_and_moves_no_generator(grammar):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = table_of(grammar)[1]
    torch.set_rng_state(state)
    table = first.clone()
    start_from_counts(table, grammar, Counts(tokens=1000))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(table_of(grammar)[1], first)


def test_the_number_of_threads_changes_only_the_last_digits(grammar):
    before = torch.get_num_threads()
    try:
        tables = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            tables.append(table_of(grammar, tokens=20_000)[1])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(tables[0], tables[1], rtol=0, atol=1e-6)


def test_a_table_of_double_precision_gets_the_same_points(grammar):
    single = table_of(grammar)[1]
    torch.manual_seed(3)
    double = (torch.randn(grammar.tokenizer.vocab_size, 32) * 0.1).double()
    start_from_counts(double, grammar, Counts(tokens=100_000))
    torch.testing.assert_close(double.float(), single, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "length"), [([[2], [3], [4]], 1), ([[2, 2, 2, 2]], 4), ([[2], [3]], 4)]
)
def test_text_without_neighbours_that_tell_is_refused(rows, length):
    data = Repeated(rows, length)
    with pytest.raises(DataError, match="no token has neighbours that tell it from others"):
        start_from_counts(torch.randn(data.tokenizer.vocab_size, 4), data, Counts(tokens=50))

"""Filling in: which half is given, and what exact chains answer."""

import itertools

import pytest
import torch

from dlmkit.core.objective import Batch
from dlmkit.exact.context_gain import Frequencies
from dlmkit_acceptance.infilling import accuracy, by_chains, half_given

V, L = 3, 5


@pytest.fixture(scope="module")
def frequencies():
    torch.manual_seed(0)
    first, pairs, triples = (torch.rand([V] * n) for n in (1, 2, 3))
    return Frequencies(*(table / table.sum(-1, keepdim=True) for table in (first, pairs, triples)))


def full(rows, length=L):
    ids = torch.randint(0, V, (rows, length), generator=torch.Generator().manual_seed(1))
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool))


def test_half_of_each_row_is_given_whatever_the_other_rows():
    batch = full(50, 11)
    given = half_given(batch, 0)
    assert (given.sum(1) == 5).all()
    assert given.float().mean(0).max() < 0.75
    assert torch.equal(given[:7], half_given(Batch(batch.ids[:7], batch.attend[:7]), 0))
    assert not torch.equal(given, half_given(batch, 1))
    batch.attend[:, 6:] = False
    padded = half_given(batch, 0)
    assert (padded.sum(1) == 3).all()
    assert not padded[:, 6:].any()


@pytest.mark.parametrize("name", ["bigram", "trigram"])
def test_the_likeliest_tokens_are_those_of_the_exact_posterior(frequencies, name):
    batch = full(12)
    given = half_given(batch, 0)
    filled = by_chains(batch, given, frequencies, 0, rows=5)[name]
    for row in range(12):
        mass = torch.zeros(L, V)
        for word in itertools.product(range(V), repeat=L):
            if all(word[i] == batch.ids[row, i] for i in range(L) if given[row, i]):
                chance = frequencies.unigram[word[0]] * frequencies.transition[word[0], word[1]]
                for a, b, c in zip(word, word[1:], word[2:], strict=False):
                    table = frequencies.second[a] if name == "trigram" else frequencies.transition
                    chance = chance * table[b, c]
                mass[range(L), word] += chance
        assert filled.likeliest[row].tolist() == mass.argmax(1).tolist()
    assert torch.equal(filled.drawn[given], batch.ids[given])
    assert torch.equal(filled.drawn, by_chains(batch, given, frequencies, 0)[name].drawn)
    assert not torch.equal(filled.drawn, by_chains(batch, given, frequencies, 1)[name].drawn)


def test_accuracy_counts_open_positions_alone():
    ids = torch.tensor([[0, 1, 2, 0]])
    batch = Batch(ids, torch.tensor([[True, True, True, False]]))
    given = torch.tensor([[True, False, False, False]])
    answer = torch.tensor([[2, 1, 0, 0]])
    assert accuracy({"x": answer}, batch, given)["x"].tolist() == [0.5]


def test_without_threes_there_is_no_trigram(frequencies):
    batch = full(4)
    pairs = Frequencies(frequencies.unigram, frequencies.transition)
    assert by_chains(batch, half_given(batch, 0), pairs, 0).keys() == {"bigram"}

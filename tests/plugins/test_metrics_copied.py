"""Stretches of text that stand in the training text, beside a search for each of them."""

import random
from collections.abc import Iterator

import pytest
import tokenizers
from tokenizers import models

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit.core.tokenizer import Tokenizer
from dlmkit_metrics.configs import Copied
from dlmkit_metrics.copied import CopiedMetric

DRAWN = random.Random(0)
TRAIN = ["".join(DRAWN.choices("ab ", k=60)) for _ in range(5)]


class Text(Data):
    def __init__(self) -> None:
        vocabulary = {"<pad>": 0, "<unk>": 1}
        backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        self.tokenizer = Tokenizer(backend)

    def stream(self, seed, batch_size):
        raise NotImplementedError

    def validation(self, count):
        raise NotImplementedError

    def texts(self, split: str) -> Iterator[str]:
        return iter(TRAIN if split == "train" else ["abba" * 20])


def fitted(**options):
    metric = CopiedMetric(Copied(**options), BuildContext(length=8))
    metric.fit(Text())
    return metric


@pytest.mark.parametrize("window", [1, 3, 6])
def test_it_finds_what_a_search_finds(window):
    whole = "\n".join(TRAIN)
    texts = ["".join(DRAWN.choices("ab \nz", k=k)) for k in (40, 30, 5, 0)] + [TRAIN[2][7:40]]
    pieces = [[t[i : i + window] for i in range(len(t) - window + 1)] for t in texts]
    hits = [sum(piece in whole for piece in row) for row in pieces]
    found = fitted(window=window).evaluate(texts)
    assert found.numbers["copied"] == sum(hits) / sum(map(len, pieces))
    assert 0 < found.numbers["copied"] < 1
    assert found.again([0, 4])["copied"] == (hits[0] + hits[4]) / len(pieces[0] + pieces[4])


def test_the_whole_of_a_training_text_is_copied_and_held_out_text_stands_beside():
    found = fitted(window=8).measure([TRAIN[0], TRAIN[3]])
    assert found["copied"] == 1.0
    assert found["human_copied"] < 0.2


def test_words_are_windows_too_and_a_text_shorter_than_one_has_none():
    metric = fitted(unit="words", window=2)
    first, second = [w for t in TRAIN for w in t.split()][:2]
    assert metric.measure([f"{first} {second}"])["copied"] == 1.0
    assert "copied" not in metric.measure([first])

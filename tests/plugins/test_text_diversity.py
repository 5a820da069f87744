"""Distinct-n and n-gram distance, against counting by hand."""

import math
from collections.abc import Iterator

import pytest

from dlmkit.core.context import BuildContext
from dlmkit.core.data import Data
from dlmkit_text.configs import Distinct, NgramDistance
from dlmkit_text.diversity import DistinctMetric, NgramDistanceMetric, drawn

CONTEXT = BuildContext(length=4)


class Fixed(Data):
    """Given documents, without a tokenizer that anybody asks."""

    tokenizer = None  # type: ignore[assignment]

    def __init__(self, **splits: list[str]) -> None:
        self.splits = splits

    def stream(self, seed, batch_size):
        raise NotImplementedError

    def validation(self, count):
        raise NotImplementedError

    def texts(self, split: str) -> Iterator[str]:
        return iter(self.splits[split])


DATA = Fixed(train=["a b a b a b c d"], validation=["a b c", "b c"])


def distance(**options: object) -> NgramDistanceMetric:
    made = NgramDistanceMetric(NgramDistance.model_validate(options), CONTEXT)
    made.fit(DATA)
    return made


def test_distance_is_half_the_absolute_difference_of_shares():
    # validation: a 1/5, b 2/5, c 2/5 and the pairs ab 1/3, bc 2/3
    found = distance(orders=[1, 2]).score(["a a b c", "d"])
    assert found["ngram_tv_1"] == pytest.approx((1 / 5 + 1 / 5 + 1 / 5 + 1 / 5) / 2)
    assert found["ngram_tv_2"] == pytest.approx((1 / 3 + 0 + 1 / 3) / 2)


def test_pairs_do_not_cross_texts():
    assert distance(orders=[2]).score(["a b c", "b c"]) == {"ngram_tv_2": pytest.approx(0.0)}
    assert distance(orders=[2]).score(["a b c b c"])["ngram_tv_2"] > 0


def test_distance_bounds_and_what_humans_show():
    found = distance(orders=[1]).measure(["x y z"])
    assert found["ngram_tv_1"] == pytest.approx(1.0)
    assert 0.0 < found["human_ngram_tv_1"] < 1.0


def test_repetition_is_far_however_likely():
    metric = distance(orders=[1])
    varied, looped = metric.score(["a b c b c"]), metric.score(["b b b b b"])
    assert varied["ngram_tv_1"] == pytest.approx(0.0)
    assert looped["ngram_tv_1"] == pytest.approx(0.6)


def test_distinct_counts_pooled_ngrams():
    metric = DistinctMetric(Distinct(), CONTEXT)
    metric.fit(DATA)
    found = metric.score(["a b a b", "a b"])
    assert found["distinct_1"] == pytest.approx(2 / 6)
    assert found["distinct_2"] == pytest.approx(2 / 4)
    assert found["entropy_1"] == pytest.approx(math.log(2))
    assert found["distinct_4"] == 1.0
    assert {"human_distinct_1", "human_entropy_1"} <= set(metric.measure(["a b a b"]))


def test_no_text_has_no_numbers():
    metric = DistinctMetric(Distinct(), CONTEXT)
    metric.fit(DATA)
    assert metric.measure([""]) == {}
    assert distance().score([]) == {}


def test_real_text_of_the_same_amount_keeps_documents_apart():
    documents = [["a", "b"], ["c"], [], ["d", "e", "f"]]
    rows = drawn(documents, [4, 3])
    assert sum(map(len, rows)) == 7
    for row in rows:
        (document,) = (d for d in documents if row[0] in d)
        assert row == document[: len(row)]
    assert {row[0] for row in rows} == {"a", "c", "d"}  # none twice before all once
    assert drawn([[]], [1]) == []

"""Intervals of any metric, and records that are sealed and compared."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from dlmkit import documents
from dlmkit.core.metric import Measured, Metric
from dlmkit.errors import CheckpointError, DataError, UsageError
from dlmkit.evaluation.measure import Gauge, Intervals, measure
from dlmkit.evaluation.record import Record, compare
from dlmkit.exact.intervals import left_out, student
from dlmkit.plugin import Part


class Characters(Metric):
    """Mean length, and the number and share of different texts."""

    def fit(self, data) -> None:
        pass

    def measure(self, texts):
        mean = sum(map(len, texts)) / len(texts)
        different = float(len(set(texts)))
        shares = {"different": different, "share": different / len(texts)}
        return {"length": mean, **shares, "human_length": 3.0}

    def bounds(self, name):
        return 0.0, 1.0 if name == "share" else math.inf


class Fixed(Characters):
    def evaluate(self, texts, ids=None):
        return Measured(self.measure(texts), None)


TEXTS = ["x" * n for n in (1, 2, 3, 5, 8, 13)]


def gauge(metric):
    return [Gauge("m", Part(use="m"), metric)]


def numbers(metric, texts=TEXTS):
    return measure(gauge(metric), texts, None, Intervals()).numbers["m"]


def test_an_interval_of_a_mean_is_students():
    found = numbers(Characters())["length"]
    lengths = np.array([*map(len, TEXTS)])
    error = lengths.std(ddof=1) / math.sqrt(6)
    assert found["value"] == pytest.approx(lengths.mean())
    assert found["error"] == pytest.approx(error)
    ends = lengths.mean() + error * np.array([-1, 1]) * student(5)
    assert (found["low"], found["high"]) == pytest.approx(tuple(ends))


def test_an_interval_stays_inside_what_the_number_can_be():
    found = numbers(Characters(), [*TEXTS, "x"])["share"]
    assert found["low"] < found["value"] == pytest.approx(6 / 7)
    assert found["value"] + student(6) * found["error"] > 1.0 == found["high"]


def test_where_every_part_says_the_same_no_interval_is_known():
    found = numbers(Characters())["share"]
    assert found == {"value": 1.0, "low": None, "high": None, "error": None}
    assert numbers(Characters(), ["x"])["length"]["low"] is None


def test_where_no_interval_is_known_it_is_null():
    assert numbers(Characters())["human_length"]["low"] is None
    assert numbers(Fixed())["length"]["low"] is None


@pytest.mark.parametrize(("texts", "words"), [([], "no texts"), (["", ""], "all 2 texts")])
def test_nothing_to_measure(texts, words):
    with pytest.raises(DataError, match=words):
        measure(gauge(Characters()), texts, None, Intervals())


def record(each=(0.5, 1.0, 1.2, 1.3), **protocol):
    """Of a mean over texts (or rows), each of which has a value."""
    value = sum(each) / len(each)
    found = {"value": value, "low": value - 0.1, "high": value + 0.1, "error": 0.1}
    whole = {"sampling": {"steps": 4, "exit": None}, "likelihood": {}, **protocol}
    left = [sum(each[i] for i in kept.tolist()) / len(kept) for kept in left_out(len(each), 200)]
    parts = {"m": {"count": len(each), "numbers": {"nll": left}}}
    return Record({"name": "a"}, whole, {"sha256": "x"}, {"m": {"nll": found}}, {}, parts)


def test_a_record_survives_its_file(tmp_path):
    text = documents.text(record().content())
    documents.write_new(tmp_path / "a.json", text)
    assert Record.load(tmp_path / "a.json") == record()
    with pytest.raises(UsageError, match="exists already"):
        documents.write_new(tmp_path / "a.json", text)


def written(tmp_path, change):
    content = record().content()
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path / "a.json"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda c: c["results"]["m"]["nll"].update(value=0.5), CheckpointError, "altered"),
        (lambda c: c.update({"dlmkit-evaluation-record": 9}), UsageError, "format 9"),
        (lambda c: c.pop("dlmkit-evaluation-record"), UsageError, "is no dlmkit-evaluation-record"),
    ],
)
def test_files_that_are_no_record_of_this_version(tmp_path, change, error, words):
    with pytest.raises(error, match=words):
        Record.load(written(tmp_path, change))


def test_a_truncated_record(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(record().content())[:50])
    with pytest.raises(CheckpointError, match="truncated"):
        Record.load(tmp_path / "a.json")


def test_protocols_that_differ_are_refused_by_name():
    other = record(sampling={"steps": 8, "exit": {"use": "entropy"}})
    with pytest.raises(UsageError) as refused:
        compare(record(), other)
    assert "sampling.steps: 4 -> 8" in str(refused.value)
    assert 'sampling.exit: null -> {"use": "entropy"}' in str(refused.value)
    with pytest.raises(UsageError, match="exit"):
        compare(record(), other, ["steps"])
    assert len(compare(record(), other, ["steps", "exit"])) == 1


def test_a_subject_may_differ_and_a_difference_has_an_interval():
    other = replace(record((0.7, 1.1, 1.4, 1.4)), subject={"name": "b"})
    (change,) = compare(record(), other)
    gaps = np.array([0.2, 0.1, 0.2, 0.1])
    half = student(3) * gaps.std(ddof=1) / 2
    assert (change.low, change.high) == pytest.approx((0.15 - half, 0.15 + half))
    assert change.differs  # though each record's own error is far larger: the rows are the same
    assert not compare(record(), record((0.7, 1.1, 0.9, 1.4)))[0].differs


def test_texts_that_cannot_be_paired_have_no_interval_of_a_difference():
    for other in (record((0.7, 1.1, 1.4)), replace(record(), left_out={})):
        (change,) = compare(record(), other)
        assert (change.low, change.high, change.differs) == (None, None, False)

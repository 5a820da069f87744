"""Intervals of any metric, and records that are sealed and compared."""

import json
from dataclasses import replace

import pytest

from dlmkit.core.metric import Measured, Metric
from dlmkit.errors import CheckpointError, DataError, UsageError
from dlmkit.evaluation.intervals import bootstrap_mean
from dlmkit.evaluation.measure import Gauge, Intervals, measure
from dlmkit.evaluation.record import Record, check_new, compare, save
from dlmkit.plugin import Part


class Characters(Metric):
    """Mean length, and the number of different texts, which a resampling can only lower."""

    def fit(self, data) -> None:
        pass

    def measure(self, texts):
        mean = sum(map(len, texts)) / len(texts)
        return {"length": mean, "different": float(len(set(texts))), "human_length": 3.0}


class Fixed(Characters):
    def evaluate(self, texts, ids=None):
        return Measured(self.measure(texts), None)


TEXTS = ["x" * n for n in (1, 2, 3, 5, 8, 13)]


def gauge(metric):
    return [Gauge("m", Part(use="m"), metric)]


def numbers(metric, draws=400):
    return measure(gauge(metric), TEXTS, None, Intervals(draws=draws))["m"]


def test_an_interval_of_a_mean_is_the_bootstraps():
    import torch

    found = numbers(Characters(), 2000)["length"]
    low, high = bootstrap_mean(torch.tensor([float(len(t)) for t in TEXTS]))
    assert found["value"] == pytest.approx(sum(map(len, TEXTS)) / 6)
    assert found["low"] == pytest.approx(low, abs=0.15)
    assert found["high"] == pytest.approx(high, abs=0.15)


def test_what_doubles_cannot_raise_is_moved_back():
    found = numbers(Characters())["different"]
    assert found["low"] < found["value"] == 6.0 < found["high"]


def test_where_no_interval_is_known_it_is_null():
    assert numbers(Characters())["human_length"]["low"] is None
    assert numbers(Fixed())["length"]["low"] is None


@pytest.mark.parametrize(("texts", "words"), [([], "no texts"), (["", ""], "all 2 texts")])
def test_nothing_to_measure(texts, words):
    with pytest.raises(DataError, match=words):
        measure(gauge(Characters()), texts, None, Intervals())


def record(value=1.0, error=0.1, **protocol):
    found = {"value": value, "low": value - error, "high": value + error, "error": error}
    whole = {"sampling": {"steps": 4, "exit": None}, "likelihood": {}, **protocol}
    return Record({"name": "a"}, whole, {"sha256": "x"}, {"m": {"nll": found}}, {})


def test_a_record_survives_its_file(tmp_path):
    save(record().content(), tmp_path / "a.json")
    assert Record.load(tmp_path / "a.json") == record()
    with pytest.raises(UsageError, match="File exists"):
        save(record().content(), tmp_path / "a.json")
    with pytest.raises(UsageError, match="exists already"):
        check_new(tmp_path / "a.json")
    with pytest.raises(UsageError, match="no folder"):
        check_new(tmp_path / "none" / "a.json")


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
    assert "sampling.steps: 4 and 8" in str(refused.value)
    assert "sampling.exit.use: nothing and entropy" in str(refused.value)
    with pytest.raises(UsageError, match="exit"):
        compare(record(), other, ["steps"])
    assert len(compare(record(), other, ["steps", "exit"])) == 1


def test_a_subject_may_differ_and_a_difference_has_an_interval():
    other = replace(record(1.5), subject={"name": "b"})
    (change,) = compare(record(), other)
    half = 1.959964 * (0.1**2 + 0.1**2) ** 0.5
    assert (change.low, change.high) == pytest.approx((0.5 - half, 0.5 + half))
    assert change.differs
    assert not compare(record(), record(1.1))[0].differs

"""The acceptance document: what is read off curves, and when a difference counts."""

import json
from dataclasses import replace

import pytest
import torch

from dlmkit import documents
from dlmkit.core.metric import Metric
from dlmkit.errors import CheckpointError, UsageError
from dlmkit.evaluation.frontier import crossing
from dlmkit.evaluation.measure import Intervals
from dlmkit_acceptance import document as acceptance
from dlmkit_acceptance.document import Point

INTERVALS = Intervals()
COUNT = 100


def test_crossing_is_linear_between_neighbours():
    curve = [(1.0, 10.0), (2.0, 20.0), (4.0, 0.0)]
    assert crossing(curve, 1.5) == pytest.approx(15.0)
    assert crossing(curve, 3.0) == pytest.approx(10.0)
    assert crossing(curve, 2.0) == 20.0
    assert crossing(curve, 0.9) is None
    assert crossing([(1.0, 2.0), (1.0, 4.0)], 1.0) == 3.0
    assert crossing([], 1.0) is None


def level(model, bigram, free=4.0, spread=0.01):
    noise = spread * torch.randn(40, generator=torch.Generator().manual_seed(0)).double()
    noise -= noise.mean()
    columns = [model + noise, torch.full((40,), free), torch.full((40,), bigram)]
    scores = torch.stack([*columns, torch.full((40,), bigram - 1.0)], 1).double() * 10
    return acceptance.level(1.5, scores, torch.full((40,), 10.0).double(), INTERVALS)


def test_a_level_is_judged_where_the_bigram_gains():
    found = level(2.0, 2.5)
    assert found["verdict"] == "better"
    assert found["model_minus_bigram"]["value"] == pytest.approx(-0.5)
    assert found["share"]["value"] == pytest.approx(2.0 / 2.5)
    assert level(3.0, 2.5)["verdict"] == "worse"
    assert level(2.5, 2.5, spread=1.0)["verdict"] == "undecided"
    assert level(2.0, 3.99)["verdict"] is None


def point(entropy, quality, spread=0.05):
    generator = torch.Generator().manual_seed(int(100 * entropy + quality))
    a, b = spread / COUNT * torch.randn(2, COUNT, generator=generator).double()
    values = {"entropy_4": entropy, "entropy_1": entropy - 4.0, "nll_per_character": quality}
    left = {
        "entropy_4": (entropy + a - 1.0 / COUNT).tolist(),  # fewer texts, less entropy
        "entropy_1": [entropy - 4.0] * COUNT,
        "nll_per_character": (quality + b).tolist(),
    }
    return Point(COUNT, values, left, dict.fromkeys(values, (0.0, 99.0)))


def document(model=2.0):
    curves = {
        "model": {0.8: point(6.0, model), 1.0: point(8.0, model + 1.0)},
        "bigram": {0.8: point(6.5, 4.0), 1.0: point(7.5, 5.0)},
        "trigram": {0.8: point(5.0, 3.0), 1.0: point(6.0, 4.0)},
    }
    human = point(7.0, 1.0)
    scores = {
        name: Point(
            COUNT,
            {"likeliest": value, "drawn": value, "nll_per_character": 2.0},
            {
                "likeliest": [value + 1e-4 * k for k in range(COUNT)],
                "drawn": [value] * COUNT,
                "nll_per_character": [2.0] * COUNT,
            },
            dict.fromkeys(("likeliest", "drawn", "nll_per_character"), (0.0, 9.0)),
        )
        for name, value in (("model", 0.5), ("bigram", 0.3))
    }
    return {
        "subject": {"name": "m", "sha256": "x"},
        "protocol": {"rows": 4, "texts": 64, "infilled": 8, "seed": 0},
        "levels": [level(2.0, 2.5), level(3.0, 3.99)],
        "frontier": acceptance.frontier(curves, human, INTERVALS),
        "infilling": acceptance.infilled(scores, human, INTERVALS),
        "samples": ["one", "two"],
    }


def test_likelihoods_are_compared_at_human_entropy():
    found = document()["frontier"]["at_human"]["entropy_4"]
    assert found["model"]["value"] == pytest.approx(2.5)
    assert found["model"]["low"] < 2.5 < found["model"]["high"]  # though all parts lie too low
    assert found["bigram"]["value"] == pytest.approx(4.5)
    assert found["model_minus"]["bigram"]["value"] == pytest.approx(-2.0)
    assert found["verdicts"] == {"bigram": "better", "trigram": "undecided"}
    assert found["trigram"]["value"] is None  # it does not get there


def test_what_is_open_is_not_passed_and_is_said():
    found = document()
    assert not acceptance.passed(found)
    assert acceptance.shortfalls(found) == [
        "- At human entropy its texts are not surely likelier than a trigram sampler's."
    ]
    found["frontier"]["at_human"]["entropy_4"]["verdicts"]["trigram"] = "better"
    assert acceptance.passed(found)
    assert acceptance.shortfalls(found) == []
    found["levels"][0]["verdict"] = "worse"
    assert not acceptance.passed(found)
    assert (
        "is above the exact bigram denoiser's at noise-to-signal ratio 1.50"
        in (acceptance.shortfalls(found)[0])
    )


def test_rows_are_paired_in_filling_in():
    found = document()["infilling"]["model_minus"]["bigram"]["likeliest"]
    assert found["value"] == pytest.approx(0.2)
    assert found["error"] == pytest.approx(0.0, abs=1e-9)  # each alone is uncertain


def test_the_tables_and_the_picture():
    found = document()
    text = acceptance.markdown(found)
    assert "| 1.50 | 4.0000 | 2.5000 | 1.5000 | 2.0000 | -0.5000 [" in text
    assert "not judged" in text
    assert "not reached (undecided)" in text
    assert "| bigram | 0.300" in text
    for theme in acceptance.PICTURES:
        left, right = acceptance.draw(found, theme).axes
        assert len(left.lines) == 3
        assert right.get_legend() is not None


class Length(Metric):
    def fit(self, data):
        pass

    def measure(self, texts):
        return {"length": sum(map(len, texts)) / len(texts), "human_length": 7.0}


def test_what_is_known_of_texts_is_left_out_with_them():
    texts, each = ["a", "bb", "cccc"], torch.tensor([1.0, 2.0, 4.0]).double()
    found = Point.of({Length(): "own_"}, texts, INTERVALS, {"own": each})
    assert found.values == {"own_length": pytest.approx(7 / 3), "own": pytest.approx(7 / 3)}
    assert found.left["own"] == found.left["own_length"] == [3.0, 2.5, 1.5]


def test_a_difference_of_sets_is_paired_by_text():
    """A curve that lies a fixed amount above another is surely above it."""
    curve = [point(6.0, 2.0), point(8.0, 3.0)]
    above = [
        replace(
            one,
            values={**one.values, "nll_per_character": one.values["nll_per_character"] + 0.1},
            left={
                **one.left,
                "nll_per_character": [
                    value + 0.1 + 1e-9 * k for k, value in enumerate(one.left["nll_per_character"])
                ],
            },
        )
        for one in curve
    ]
    human = point(7.0, 1.0)
    one, other = (acceptance.reading(c, human, "entropy_4") for c in (above, curve))
    lead = one.minus(other, INTERVALS)
    assert lead["low"] == pytest.approx(0.1, abs=1e-6)
    assert lead["high"] == pytest.approx(0.1, abs=1e-6)
    assert one.number(INTERVALS)["error"] > 0.001


def test_it_is_sealed(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(documents.text(acceptance.ACCEPTANCE.sealed(document())))
    assert acceptance.load(path)["samples"] == ["one", "two"]
    path.write_text(path.read_text().replace('"two"', '"too"'))
    with pytest.raises(CheckpointError, match="has been altered"):
        acceptance.load(path)
    path.write_text(json.dumps({"something": 1}))
    with pytest.raises(UsageError, match="is no dlmkit-acceptance"):
        acceptance.load(path)

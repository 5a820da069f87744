"""Decoders compared at equal evaluations: the arithmetic by hand, and a run on the test-bed."""

import json
import math
from dataclasses import replace

import pytest
import torch

from dlmkit.bench.decoders import Bench, Curve, Found, Plan, Rule, Scale, Verdict, entropy
from dlmkit.cli.app import main
from dlmkit.exact.intervals import Interval
from dlmkit.model import Model, open_model
from dlmkit.plugin import Part

SMALL = ("length=8", "data.with.tokens=6", "data.with.successors=2")


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model("markov_masked", SMALL)


def found(evaluations: float, nats: float, texts: int = 40, spread: float = 0.0) -> Found:
    wave = spread * torch.linspace(-1, 1, texts, dtype=torch.float64)
    same = torch.full((texts,), evaluations, dtype=torch.float64)
    return Found(same, nats + wave, torch.full_like(same, 2.0), {})


def test_evaluations_of_the_coarser_grid_at_the_same_gap():
    runs = {2: found(2, 3.0), 4: found(4, 2.0), 8: found(8, 1.0)}
    curve = Curve.of(runs, found(8, 1.0))
    gaps = torch.tensor([2.0, 1.5, 1.0, 0.0, 9.0], dtype=torch.float64)
    expected = torch.tensor([2.0, math.sqrt(8), 4.0, 8.0, 2.0], dtype=torch.float64)
    five = Curve(curve.evaluations, curve.gaps[:5])
    torch.testing.assert_close(five.equal(gaps), expected)


def test_a_rule_of_half_the_evaluations_saves_half():
    reference = found(16, 1.0)
    runs = {4: found(4, 3.0), 8: found(8, 2.0), 16: reference}
    curve = Curve.of(runs, reference)
    verdict = curve.verdict("rule", [found(4, 2.0), found(2, 3.0)], reference, 3)
    assert verdict.saving == pytest.approx(0.5)
    assert verdict.interval == pytest.approx((0.5, 0.5))
    assert verdict.gain
    assert "worth 50.0 % of evaluations" in verdict.sentence
    worse = curve.verdict("rule", [found(8, 3.0)], reference, 3)
    assert worse.saving == pytest.approx(-1.0)
    assert "no gain" in worse.sentence


def test_noise_is_no_gain():
    reference = found(16, 1.0)
    runs = {4: found(4, 3.0), 8: found(8, 2.0, spread=1.0), 16: reference}
    curve = Curve.of(runs, reference)
    assert not curve.verdict("rule", [found(8, 1.98, spread=3.0)], reference, 5).gain


def test_less_varied_texts_are_no_gain():
    verdict = Verdict("rule", 0.4, Interval(0.3, 0.5), True, 1)
    assert not verdict.gain
    assert "less varied" in verdict.sentence
    assert replace(verdict, entropy_fell=False).gain


def test_entropy_by_hand():
    expected = torch.tensor([0.0, math.log(2)], dtype=torch.float64)
    torch.testing.assert_close(entropy([(1, 1), (1, 2)]), expected)


@pytest.mark.parametrize("rising", [True, False])
def test_the_setting_of_a_mean_is_found(rising: bool):
    scale = Scale(0.0, 1.0)

    def mean(setting: float) -> float:
        return 4.0 + 28.0 * (setting if rising else 1.0 - setting)

    assert mean(scale.search(mean, 16.0)) == pytest.approx(16.0, rel=0.05)
    wide = Scale(0.0, math.inf)
    assert wide.search(lambda f: 32.0 / (1.0 + f), 8.0) == pytest.approx(3.0, rel=0.1)


def test_the_middle_of_every_gap_is_exact_and_takes_the_logarithm(model: Model):
    """Texts by bisection have the chain's likelihood, where as few steps at random have not."""
    bench = Bench(model, "markov_masked", Plan(texts=400, batch_size=400), lambda line: None)
    middle = bench._run("masked:random", Part(use="markov:middle"), 8)
    assert middle.evaluations.unique().tolist() == [4.0]  # of 8 tokens: 1, 2, 4 and 1
    assert middle.quality["impossible"] == 0.0
    error = (middle.quality["nll_gap_high"] - middle.quality["nll_gap"]) / 1.96
    assert abs(middle.quality["nll_gap"]) < 4.0 * error
    random = bench._run("masked:random", Part(use="masked:schedule"), 4)
    assert random.quality["nll_gap_low"] > 0.3


def test_a_quota_takes_the_evaluations_it_is_asked_for(model: Model):
    bench = Bench(model, "markov_masked", Plan(texts=64, batch_size=64), lambda line: None)
    rule = Rule("masked:entropy", "masked:entropy-bound", "bound")
    _, run = bench._at(rule, 4)
    assert float(run.evaluations.mean()) == pytest.approx(4.0, abs=0.7)


def test_the_command_ends_with_a_verdict_a_rule(tmp_path, capsys):
    words = ["bench", "sampler", "markov_masked", "--decoders", "-n", "24", "--steps", "2,4"]
    for override in SMALL:
        words += ["--set", override]
    assert main([*words, "--json", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "found.json").read_text())
    names = [verdict["rule"] for verdict in content["verdicts"]]
    assert {"confidence | schedule", "confidence | threshold"} <= set(names)
    assert {"entropy | entropy-bound", "confidence | factor"} <= set(names)
    assert all(verdict["sentence"] in out for verdict in content["verdicts"])
    assert "| random, middle |" in out or "| random, markov:middle |" in out
    assert content["protocol"]["evaluations"] == [2, 4]
    for row in content["rows"]:
        low, high = row["gap_interval"]
        assert low <= row["gap"] <= high


def test_what_it_cannot_compare_is_refused(capsys):
    assert main(["bench", "sampler", "markov", "--decoders"]) == 2
    assert "orders and quotas of masked models" in capsys.readouterr().err
    assert main(["bench", "sampler", "markov_masked", "--decoders", "--exit", "entropy"]) == 2
    assert "--exit: the option does nothing with --decoders" in capsys.readouterr().err
    words = ["bench", "sampler", "markov_masked", "--decoders", "--batch-size", "2,4"]
    assert main(words) == 2

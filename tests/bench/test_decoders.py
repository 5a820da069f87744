"""Decoders compared at equal evaluations: the arithmetic by hand, and a run on the test-bed."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dlmkit
from dlmkit.bench.decoders import DecoderBench, DecoderPlan
from dlmkit.bench.saving import Curve, DecoderVerdict, Found, entropy
from dlmkit.bench.shelf import PLAIN, Range, oracle, rules
from dlmkit.cli.app import main
from dlmkit.errors import UsageError
from dlmkit.exact.intervals import Interval
from dlmkit.model import Model, open_model
from dlmkit.registry import single

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
    five = Curve(curve.evaluations, curve.gaps[:5], curve.entropies[:5])
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
    verdict = DecoderVerdict("rule", 0.4, Interval(0.3, 0.5), (4.0, 8.0), 1)
    assert not verdict.gain
    assert "less varied texts at 4.0, 8.0 evaluations" in verdict.sentence
    assert replace(verdict, less_varied=()).gain


@pytest.mark.parametrize(
    ("entropy", "less"),
    [(1.7, True), (1.85, False), (2.05, False)],
    ids=["than both", "than the model's alone", "than neither"],
)
def test_texts_are_less_varied_beside_the_model_and_the_coarser_grid(entropy: float, less: bool):
    """Random order in 4 evaluations has an entropy of 1.8 here, between that in 2 and in 8."""

    def level(nats: float) -> torch.Tensor:
        return torch.full((40,), nats, dtype=torch.float64)

    reference = found(16, 1.0)
    few = {n: replace(found(n, 4.0), entropy=level(h)) for n, h in ((2, 1.7), (8, 1.9))}
    curve = Curve.of({**few, 16: reference}, reference)
    assert float(curve.entropy(4.0)[0]) == pytest.approx(1.8)
    run = replace(found(4, 1.0), entropy=level(entropy))
    verdict = curve.verdict("rule", [run, found(16, 1.0)], reference, 1)
    assert verdict.less_varied == ((4.0,) if less else ())


def test_entropy_by_hand():
    expected = torch.tensor([0.0, math.log(2)], dtype=torch.float64)
    torch.testing.assert_close(entropy([(1, 1), (1, 2)]), expected)


@pytest.mark.parametrize("rising", [True, False])
def test_the_setting_of_a_mean_is_found(rising: bool):
    scale = Range(0.0, 1.0)

    def mean(setting: float) -> float:
        return 4.0 + 28.0 * (setting if rising else 1.0 - setting)

    assert mean(scale.search(mean, 16.0, {})) == pytest.approx(16.0, rel=0.05)
    wide, tried = Range(0.0, math.inf), {}
    for target, setting in ((8.0, 3.0), (16.0, 1.0)):  # what was tried is not tried again
        found = wide.search(lambda f: 32.0 / (1.0 + f), target, tried)
        assert found == pytest.approx(setting, rel=0.1)


def test_a_setting_between_two_close_ones_is_found() -> None:
    """Where all positions are almost equally certain a rule takes all of them at once or one."""
    tried = list[float]()

    def mean(threshold: float) -> float:
        tried.append(threshold)
        return 1.0 + 47.0 * min(max((5.52 - threshold) / 0.04, 0.0), 1.0)

    wide = Range(0.0, math.inf)
    assert mean(wide.search(mean, 8.0, {})) == pytest.approx(8.0, rel=0.05)
    assert len(tried) < 20


@pytest.mark.parametrize("most", [2.0, 40.0])
def test_what_no_setting_reaches_is_given_up_soon(most: float) -> None:
    tried = list[float]()

    def mean(setting: float) -> float:
        tried.append(setting)
        return most - 1.0 / (1.0 + setting)

    Range(0.0, math.inf).search(mean, 8.0, {})
    assert len(tried) < 6


@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 8, 31, 32])
def test_a_whole_number_is_found_exactly(tokens: int):
    assert Range(1.0, 32.0, whole=True).search(lambda n: 32.0 / n, 32.0 / tokens, {}) == tokens


def test_the_middle_of_every_gap_is_exact_and_takes_the_logarithm(model: Model):
    """Texts by bisection have the chain's likelihood, where as few steps at random have not."""
    bench = DecoderBench(
        model, "markov_masked", DecoderPlan(texts=400, batch_size=400), lambda line: None
    )
    exact = oracle(model)
    assert exact is not None
    middle = bench.measured(exact, None, 8)
    assert middle.evaluations.unique().tolist() == [4.0]  # of 8 tokens: 1, 2, 4 and 1
    assert middle.quality["impossible"] == 0.0
    error = (middle.quality["nll_gap_high"] - middle.quality["nll_gap"]) / 1.96
    assert abs(middle.quality["nll_gap"]) < 4.0 * error
    random = bench.measured(PLAIN, None, 4)
    assert random.quality["nll_gap_low"] > 0.3


def test_a_quota_takes_the_evaluations_it_is_asked_for(model: Model):
    plan = DecoderPlan((4,), texts=64, batch_size=64)
    bench = DecoderBench(model, "markov_masked", plan, lambda line: None)
    (rule,) = (rule for rule in rules(model) if rule.name == "entropy | entropy-bound")
    ((_, run),) = bench.at(rule)
    assert float(run.evaluations.mean()) == pytest.approx(4.0, abs=0.7)


THIRD = """
from typing import Literal

import torch
from pydantic import Field

from dlmkit import Component, Config, hookimpl
from dlmkit.core.order import Order
from dlmkit.core.quota import Quota
from dlmkit.core.remask import Remask

api = 2


class Side(Config):
    "Where to begin."

    side: Literal["left", "right"] = Field("left", description="the end")


class Fill(Config):
    "How many."

    share: float = Field(0.5, gt=0.0, le=1.0, description="of what is open")


class Nothing(Config):
    "No options."


class Ends(Order):
    def __init__(self, config, context):
        self.sign = -1.0 if config.side == "left" else 1.0

    def scores(self, candidates):
        place = torch.arange(candidates.ids.shape[1], dtype=torch.float64)
        return self.sign * place.expand(candidates.ids.shape)


class Share(Quota):
    order = "mine:ends"

    def __init__(self, config, context):
        self.share_of = config.share

    def accept(self, rank, candidates, memory):
        count = (candidates.open.sum(dim=1) * self.share_of).floor().clamp(min=1)
        return (rank < count[:, None]) & candidates.open, memory


class First(Remask):
    def __init__(self, config, context):
        pass

    def back(self, candidates, accepted, memory):
        return candidates.settled & (candidates.settled.cumsum(dim=1) == 1), memory


class Refuses(Order):
    def __init__(self, config, context):
        from dlmkit.errors import RecipeError

        raise RecipeError("it has no words to count")

    def scores(self, candidates):
        return candidates.certainty.first


@hookimpl
def register_components():
    return [
        Component("order", "ends", "from an end", Side, "mine:Ends"),
        Component("order", "refuses", "never", Nothing, "mine:Refuses"),
        Component("quota", "share", "a share", Fill, "mine:Share"),
        Component("remask", "first", "the first", Nothing, "mine:First"),
    ]
"""


@pytest.fixture
def third(tmp_path: Path) -> Iterator[Model]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(single.FILES, "")  # and no plugin of this name afterwards
        file = tmp_path / "mine.py"
        file.write_text(THIRD)
        dlmkit.load_plugin(file)
        yield open_model("markov_masked", SMALL)


def test_what_a_third_party_registers_has_rows(third: Model, monkeypatch: pytest.MonkeyPatch):
    mine = [rule for rule in rules(third) if "mine:" in rule.name]
    assert [rule.name for rule in mine] == [
        "mine:ends | schedule",
        "mine:ends side=right | schedule",
        "mine:refuses | schedule",
        "mine:ends | mine:share",
        "random | schedule | mine:first",
    ]
    assert mine[3].scale == Range(0.0, 1.0)
    monkeypatch.setattr("dlmkit.bench.decoders.rules", lambda model: mine)
    plan = DecoderPlan((2, 4), texts=16, batch_size=32, calibration=16)
    content = DecoderBench(third, "markov_masked", plan, lambda line: None).run()
    taken = {(row["rule"], row["target"]): row["evaluations"] for row in content["rows"]}
    assert taken["mine:ends side=right | schedule", 4] == 4.0
    assert taken["mine:ends | mine:share", 4] == 4.0  # 8 tokens: 4, 2, 1 and 1
    assert "it has no words to count" in content["left_out"]["mine:refuses | schedule"]
    assert [verdict["rules"] for verdict in content["verdicts"]] == [4, 4, 4, 4]


def test_every_rule_of_the_shelf_has_a_row(model: Model):
    names = [rule.name for rule in rules(model)]
    assert len(set(names)) == len(names)
    assert {"confidence | tokens", "random | first-hitting", "random | schedule | planned"} <= {
        *names
    }
    assert {"random | schedule | remdm rule=rescale", "random | schedule shape=cosine"} <= {*names}
    assert {"confidence | rule margin", "random | schedule | exit falling:shape=linear"} <= {*names}
    registry = model.assembly.registry
    for kind in ("order", "quota", "remask"):
        used = {getattr(rule, kind).use for rule in (PLAIN, *rules(model)) if getattr(rule, kind)}
        there = {entry.qualified for entry in registry.components(kind)}
        assert used | {"markov:middle"} == there | {"markov:middle"}


def test_one_token_a_step_is_exact_by_any_rule(model: Model):
    """At as many evaluations as there are tokens, texts have the chain's own likelihood."""
    wanted = {"confidence | tokens", "confidence | rule margin", "random | schedule | planned"}
    plan = DecoderPlan((8,), texts=300, batch_size=300, calibration=32)
    bench = DecoderBench(model, "markov_masked", plan, lambda line: None)
    for rule in (rule for rule in rules(model) if rule.name in wanted):
        ((_, run),) = bench.at(rule)
        assert float(run.evaluations.mean()) == pytest.approx(8.0, abs=0.1)
        assert run.quality["impossible"] == 0.0
        error = (run.quality["nll_gap_high"] - run.quality["nll_gap"]) / 1.96
        assert abs(run.quality["nll_gap"]) < 4.0 * error


def test_the_command_ends_with_a_verdict_a_rule(tmp_path, capsys, monkeypatch):
    some = {"confidence | schedule", "confidence | threshold", "confidence | factor"}
    some |= {"entropy | entropy-bound", "random | schedule | exit falling"}
    monkeypatch.setattr(
        "dlmkit.bench.decoders.rules", lambda model: [r for r in rules(model) if r.name in some]
    )
    words = ["bench", "sampler", "markov", "--decoders", "-n", "24", "--steps", "2,4"]
    for override in SMALL:
        words += ["--set", override]
    assert main([*words, "--json", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "found.json").read_text())
    assert content["model"] == "markov_masked"
    names = [verdict["rule"] for verdict in content["verdicts"]]
    assert set(names) == some
    assert all(verdict["sentence"] in out for verdict in content["verdicts"])
    assert "| random, middle |" in out or "| random, markov:middle |" in out
    assert content["protocol"]["evaluations"] == [2, 4]
    for row in content["rows"]:
        low, high = row["gap_interval"]
        assert low <= row["gap"] <= high


def test_what_it_cannot_compare_is_refused(capsys):
    with pytest.raises(UsageError, match="orders and quotas of masked models"):
        DecoderBench(open_model("markov", SMALL), "markov", DecoderPlan(), lambda line: None)
    assert main(["bench", "sampler", "markov_masked", "--decoders", "--exit", "entropy"]) == 2
    assert "--exit: the option does nothing with --decoders" in capsys.readouterr().err
    words = ["bench", "sampler", "markov_masked", "--decoders", "--batch-size", "2,4"]
    assert main(words) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("use", "words", "named"),
    [
        ("--decoders", ["--early-exit"], "--early-exit"),
        ("--decoders", ["--bound", "0.01"], "--bound"),
        ("--decoders", ["--rounds", "2"], "--rounds"),
        ("--cache", ["--decoders"], "--decoders"),
        ("--cache", ["-n", "8"], "-n"),
        ("--cache", ["--quick"], "--full"),
    ],
)
def test_an_option_of_another_use_is_refused(use, words, named, capsys):
    assert main(["bench", "sampler", "markov_masked", use, *words]) == 2
    assert f"{named}: the option does nothing with {use}" in capsys.readouterr().err

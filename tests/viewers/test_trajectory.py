"""Switches, settling and curves, against values written by hand and found by other means."""

import json

import pytest
import torch

from dlmkit.exits.replay import oracle
from dlmkit_viewers.trajectory import curves, settled, settling, switches, trajectory

IDS = [
    [[1, 2, 3], [1, 4, 3], [2, 4, 3], [2, 4, 3]],
    [[5, 5, 5], [5, 5, 6], [5, 5, 5], [5, 7, 6]],
]
GIVEN = torch.tensor([[True, False, False], [False, False, False]])


def test_switches_of_generated_tokens(by_hand):
    found = switches(by_hand(IDS, GIVEN))
    assert torch.isnan(found[:, 0]).all()
    assert found[:, 1:].tolist() == [[1.0, 0.0, 0.0], [1.0, 1.0, 2.0]]


def test_a_token_settles_after_it_last_differs_from_the_end(by_hand):
    assert settled(by_hand(IDS, GIVEN)).tolist() == [[0, 2, 1], [1, 4, 4]]


def test_how_many_have_settled(by_hand):
    found = settling(by_hand(IDS, GIVEN))
    assert found["share"] == pytest.approx([2 / 5, 3 / 5, 3 / 5, 1.0])
    assert found["mean"] == pytest.approx(12 / 5)
    assert found["by_position"]["median"] == pytest.approx([1.0, 3.0, 2.5])
    assert found["by_position"]["low"] == pytest.approx([1.0, 2.5, 1.75])


def test_a_position_nobody_generated_has_no_step(by_hand):
    given = torch.tensor([[True, False, False]] * 2)
    assert settling(by_hand(IDS, given))["by_position"]["median"][0] is None


def test_the_last_token_settles_when_the_oracle_stops(markov):
    assert settled(markov).amax(dim=1).tolist() == oracle(markov).steps.tolist()


def test_switches_are_those_that_the_run_counted(markov):
    """The statistic compares likeliest tokens; a trace holds them, given ones as given."""
    assert torch.equal(switches(markov)[:, 1:], markov.statistics["switches"][:, 1:].double())


def test_curves_are_means_over_texts(markov):
    found = curves(markov)
    names = {"switches", "entropy", "kl", "margin", "norm_x", "norm_x0", "score_angle"}
    assert found.keys() == names
    expected = markov.statistics["entropy"].double().mean(dim=0)
    assert found["entropy"]["mean"] == pytest.approx(expected.tolist())
    for name in ("kl", "switches", "score_angle"):
        assert found[name]["mean"][0] is None
        assert None not in found[name]["mean"][1:]
    for curve in found.values():
        for low, high in zip(curve["low"], curve["high"], strict=True):
            assert (low is None and high is None) or low <= high


def test_an_exact_model_ends_certain(markov):
    found = curves(markov)
    assert found["entropy"]["mean"][-1] < 1e-3 < 0.5 < found["entropy"]["mean"][0]
    assert found["margin"]["mean"][-1] > 0.999
    assert found["norm_x0"]["mean"][-1] == pytest.approx(8**0.5, rel=1e-3)
    assert found["norm_x"]["mean"][-1] == pytest.approx(8**0.5, rel=0.05)


def test_it_is_json(markov):
    found = trajectory(markov)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["texts"], found["steps"]) == (7, 10)
    assert found["sigma"] == sorted(found["sigma"], reverse=True)

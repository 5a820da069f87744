"""The comparison with the best fixed exit, on curves known by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmkit.bench.verdict import Curves, fixed_cost, judge, sentence
from dlmkit.exits.replay import Replay

COST = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)


def cost(curve, bound):
    row = torch.tensor([curve], dtype=torch.float64)
    return float(fixed_cost(row, COST, torch.tensor([bound], dtype=torch.float64)))


def test_fixed_cost_at_and_between_steps():
    curve = [0.9, 0.5, 0.1, 0.0]
    assert cost(curve, 0.0) == 4.0
    assert cost(curve, 0.1) == 3.0
    assert cost(curve, 0.3) == pytest.approx(2.5)
    assert cost(curve, 0.9) == 1.0
    assert cost(curve, 1.0) == 1.0


def test_a_step_counts_only_if_all_later_ones_keep_the_bound():
    assert cost([0.0, 0.5, 0.1, 0.0], 0.05) == pytest.approx(3.5)


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_laxer_bound_never_costs_more(head, a, b):
    curve = [*head, 0.0]
    low, high = sorted((a, b))
    assert cost(curve, high) <= cost(curve, low) + 1e-9
    assert 1.0 <= cost(curve, low) <= 4.0


def texts(last_change: list[int], steps: int = 8) -> Curves:
    """Texts of one token, wrong before the step at which it settles."""
    curve = torch.tensor([[float(k < last) for k in range(1, steps + 1)] for last in last_change])
    number = torch.arange(1, steps + 1, dtype=torch.float64)
    return Curves(curve.double(), number, torch.zeros(len(last_change), dtype=torch.int64))


def replayed(curves: Curves, steps: list[int]) -> Replay:
    at = torch.tensor(steps)
    wrong = curves.disagreement[torch.arange(len(at)), at - 1]
    ids = torch.zeros(len(at), 1, dtype=torch.int64)
    return Replay(at, at, ids, wrong, curves.disagreement.shape[1])


def test_the_oracle_gains_and_a_constant_rule_does_not():
    last = [2, 8] * 100
    curves = texts(last)
    oracle = replayed(curves, last)
    found = judge("oracle", None, oracle, oracle, curves)
    assert found.fixed_evaluations == pytest.approx(8.0)
    assert found.saving == pytest.approx(1 - 5 / 8)
    assert found.gain
    assert found.of_oracle == 1.0
    constant = judge("two", 0.5, replayed(curves, [2] * 200), oracle, curves)
    assert constant.saving == pytest.approx(0.0, abs=1e-9)
    assert not constant.gain
    assert sentence(constant).startswith("two 0.5: no gain over the best fixed exit")
    assert sentence(found).startswith("oracle: gain over")


def test_a_rule_worse_than_every_fixed_exit_has_no_gain():
    last = [2, 8] * 100
    curves = texts(last)
    # it stops the hard texts early and the easy ones late
    backwards = replayed(curves, [8, 2] * 100)
    found = judge("backwards", None, backwards, replayed(curves, last), curves)
    assert found.saving < 0
    assert not found.gain


def test_a_bucket_gets_its_own_fixed_exit():
    last = [2, 8] * 100
    curves = texts(last)
    buckets = Curves(curves.disagreement, curves.cost, torch.tensor([0, 1] * 100))
    oracle = replayed(curves, last)
    found = judge("oracle", None, oracle, oracle, buckets)
    assert found.fixed_evaluations == pytest.approx(5.0)  # what the oracle knew is the bucket
    assert not found.gain


def test_the_interval_covers_and_widens_with_the_number_of_rules():
    """Random exits that know nothing: their saving is not above 0 in about 97.5 % of samples."""
    generator = torch.Generator().manual_seed(0)
    gains = 0
    for trial in range(60):
        last = torch.randint(1, 9, (80,), generator=generator).tolist()
        blind = torch.randint(4, 9, (80,), generator=generator).tolist()
        curves = texts(last)
        oracle = replayed(curves, last)
        one = judge("blind", None, replayed(curves, blind), oracle, curves, seed=trial)
        gains += one.gain
        if trial == 0:
            many = judge("blind", None, replayed(curves, blind), oracle, curves, rules=20)
            one = judge("blind", None, replayed(curves, blind), oracle, curves)
            assert many.interval.low < one.interval.low < one.interval.high < many.interval.high
    assert gains <= 5

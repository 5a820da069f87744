"""Real runs: counts agree with the loop's, and decided exits happen when decided."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmkit.bench.cases import BenchCase
from dlmkit.bench.measure import Work, against, barrier_row_steps, row_steps
from dlmkit.bench.parts import parts_of
from dlmkit.bench.rules import RuleFamily, families
from dlmkit.errors import RecipeError, UsageError
from dlmkit.model import Model
from dlmkit.sampling.requests import unconditional
from dlmkit.sampling.slots import constant, exact, halves

CASE = BenchCase("euler", "warped", 6, 3)
STEPS = [1, 6, 2, 2, 5, 3, 6]


def work(toy: Model, steps: list[int], batch: int, width=exact) -> Work:
    parts = parts_of(toy, CASE)
    whole = Work(parts, unconditional(len(steps), 6), 0, 6, batch, 6, width)
    return whole.ending(torch.tensor(steps))


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("width", [exact, halves, constant])
def test_row_steps_are_what_the_loop_executes(toy: Model, batch, width):
    outcome = work(toy, STEPS, batch, width).run()
    assert outcome.executed == row_steps(STEPS, batch, width)
    assert outcome.steps.tolist() == STEPS


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 8))
def test_no_loop_executes_less_than_needed_or_more_than_a_barrier(steps, batch):
    needed = sum(steps)
    assert row_steps(steps, batch, exact) == needed
    assert needed <= row_steps(steps, batch, halves) <= row_steps(steps, batch, constant)
    assert needed <= barrier_row_steps(steps, batch)


def test_a_barrier_waits_for_the_slowest():
    assert barrier_row_steps([1, 6, 2, 2, 5], 2) == 2 * 6 + 2 * 2 + 5


def test_an_outcome_beside_its_full_run(toy: Model):
    full = Work(parts_of(toy, CASE), unconditional(7, 6), 0, 6, 3, 6).run()
    early = work(toy, STEPS, 3).run()
    everything = torch.ones(7, 6, dtype=torch.bool)
    same = against(full, full.ids(6), everything, 6)
    assert same.token_disagreement == 0.0
    assert same.saving == 1.0
    found = against(early, full.ids(6), everything, 6)
    assert found.saving == pytest.approx(6 * 7 / sum(STEPS))
    assert found.disagreement[[1, 6]].tolist() == [0.0, 0.0]  # those that went to the end
    assert found.token_disagreement > 0.0


def test_families_are_open_at_one_number(toy: Model):
    names = families(toy)
    assert {"entropy", "kl", "jeffreys", "margin", "stable-and-confident"} <= set(names)
    assert "switches:steps=tuned" in names
    assert not {"fixed", "fraction", "level", "any"} & set(names)
    for name in names:
        assert RuleFamily.of(toy, name).open


def test_a_family_with_its_number_is_not_open(toy: Model):
    family = RuleFamily.of(toy, "entropy:threshold=0.25")
    assert not family.open
    assert family(None).needs == ("entropy",)
    assert family.at(None).options["threshold"] == 0.25


def test_thresholds_below_the_noise_are_left_out(toy: Model):
    family = RuleFamily.of(toy, "kl")
    assert family.usable(0.3)
    assert not family.usable(1e-12)
    assert not family.usable(-1.0)


def test_unknown_rules_and_unclear_numbers(toy: Model):
    with pytest.raises(RecipeError, match="entropi"):
        RuleFamily.of(toy, "entropi")
    with pytest.raises(UsageError, match="tuned"):
        RuleFamily.of(
            toy,
            "all:rules=[{use: kl, with: {threshold: tuned}}, {use: margin, with: "
            "{threshold: tuned}}]",
        )

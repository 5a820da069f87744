"""Calibration: exact p-values, the sequence, and the guarantee where the true risk is known."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from risk import PICKERS, RiskCurve, most_violations, simulate
from scipy import stats

from dlmkit.core.context import BuildContext
from dlmkit.errors import UsageError
from dlmkit.exits import calibrate
from dlmkit.exits.calibrate import (
    check_levels,
    exact_binomial,
    hoeffding_bentkus,
    passing,
    sequence,
    texts_needed,
)
from dlmkit.exits.certificate import Certificate
from dlmkit.exits.trace import Trace
from dlmkit.plugin import Part
from dlmkit.registry.lookup import Registry

REGISTRY = Registry.load(third_party=False)
EPSILON = DELTA = 0.05


def fixed(step):
    return REGISTRY.build("exit", Part(use="fixed", options={"step": int(step)}), CONTEXT)


CONTEXT = BuildContext(length=1)


@pytest.mark.parametrize("p_value", [exact_binomial, hoeffding_bentkus])
def test_p_values_are_valid_at_the_border(p_value):
    """P(p <= delta) <= delta when the expected loss is exactly epsilon, by enumeration."""
    for n, epsilon in ((30, 0.1), (200, 0.05)):
        losses = [torch.arange(n).lt(k).double() for k in range(n + 1)]
        chance = [calibrate.binomial_cdf(k, n, epsilon) for k in range(n + 1)]
        chance = [b - a for a, b in itertools.pairwise([0.0, *chance])]
        for delta in (0.01, 0.05, 0.3):
            rejected = (
                c for x, c in zip(losses, chance, strict=True) if p_value(x, epsilon) <= delta
            )
            assert sum(rejected) <= delta


def test_known_numbers_of_texts():
    """(1 - epsilon)^n <= delta: sampling.md, and any table of zero-failure tests."""
    assert [texts_needed(e, 0.05) for e in (0.05, 0.02, 0.01)] == [59, 149, 299]
    assert texts_needed(0.05, 0.05, 0.05) is None
    assert texts_needed(0.05, 0.05, 0.025) > 154


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("delta", [0.2, 0.05, 0.01])
def test_the_number_of_texts_is_the_fewest_that_pass(epsilon, share, delta):
    """Failures are whole texts, so that the chance to pass goes up and down with their number."""
    rate = share * epsilon
    fewest = next(
        n
        for n in itertools.count(1)
        if stats.binom.cdf(math.ceil(rate * n - 1e-9), n, epsilon) <= delta
    )
    assert texts_needed(epsilon, delta, rate) == fewest


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=8))
def test_the_sequence_goes_from_cautious_to_bold(pairs):
    risk, cost = [float(r) for r, _ in pairs], [float(c) for _, c in pairs]
    order = sequence(risk, cost)
    kept = [(risk[i], -cost[i]) for i in order]
    assert kept == sorted(kept)
    for i in set(range(len(pairs))) - set(order):
        assert any(risk[j] < risk[i] and cost[j] <= cost[i] for j in order)


def test_nothing_passes_after_the_first_failure():
    values = [0.01, 0.05, 0.051, 0.0]
    assert passing([3, 0, 1, 2], lambda i: values[i], 0.05) == [3, 0, 1]
    assert passing([2, 3], lambda i: values[i], 0.05) == []


@pytest.mark.parametrize(
    ("name", "spread"),
    [("exact binomial", 1.0), ("Hoeffding-Bentkus", 1.0), ("Hoeffding-Bentkus", 0.2)],
)
def test_the_guarantee_holds_over_recalibrations(name, spread):
    curve = RiskCurve(spread=spread)
    assert curve.risk[0] < EPSILON < curve.risk[-1]
    found = simulate(curve, PICKERS[name], texts=206, epsilon=EPSILON, delta=DELTA, runs=500)
    assert found.violations <= most_violations(500, DELTA)
    assert found.none < 50, "a method that never chooses promises nothing"


@pytest.mark.parametrize("name", ["best empirical", "wrong tail", "tokens as trials"])
def test_what_is_often_done_instead_breaks_it(name):
    found = simulate(RiskCurve(), PICKERS[name], texts=206, epsilon=EPSILON, delta=DELTA, runs=500)
    assert found.violations > 3 * most_violations(500, DELTA)


def test_losses_of_the_test_bed_have_the_risk_it_says():
    for spread in (1.0, 0.2):
        curve = RiskCurve(spread=spread)
        losses = curve.losses(40_000, torch.Generator().manual_seed(3))
        error = losses.std(dim=0) / 200.0
        assert bool(((losses.mean(dim=0) - curve.risk).abs() < 5.0 * error + 1e-4).all())


def synthetic(losses):
    """A trace of one-token texts that differ from the full run at step s where the loss of
    threshold K - s is 1, and of which stopping at s = 1 .. K saves more the smaller s is."""
    texts, count = losses.shape
    wrong = torch.cat((losses.flip(1) > 0, torch.zeros(texts, 1, dtype=torch.bool)), dim=1)
    yes = torch.ones(texts, 1, dtype=torch.bool)
    steps = torch.arange(1.0, count + 2.0).expand(texts, -1)
    return Trace(
        row=torch.arange(texts),
        ids=wrong[..., None].to(torch.int16),
        given=~yes,
        attend=yes,
        statistics={"step": steps},
        evaluations=torch.arange(1, count + 2),
    )


def calibrated(steps, ordering, testing, epsilon):
    promise = calibrate.Promise(epsilon, DELTA)
    return calibrate.calibrate("fixed", fixed, steps, ordering, testing, promise)


def test_a_trace_is_calibrated_like_its_losses():
    """The boldest fixed exit of the product is the boldest threshold of the simulation."""
    pick = PICKERS["exact binomial"]
    for seed in range(5):
        losses = RiskCurve(size=20).losses(206, torch.Generator().manual_seed(seed))
        trace = synthetic(losses)
        rows = torch.arange(206)
        ordering, testing = trace.take(rows < 51), trace.take(rows >= 51)
        steps = [float(step) for step in range(1, 21)]
        found = calibrated(steps, ordering, testing, EPSILON)
        chosen = pick(losses, EPSILON, DELTA)
        assert found.threshold == 20 - chosen
        assert found.mean_loss == float(losses[51:, chosen].mean())
        assert found.tested.evaluations.unique().tolist() == [20 - chosen]


def test_no_threshold_is_better_than_a_wrong_one():
    bad = torch.ones(200, 3, dtype=torch.float64)
    trace = synthetic(bad)
    found = calibrated([1.0, 2.0, 3.0], trace, trace, 0.5)
    assert (found.threshold, found.mean_loss) == (None, 1.0)
    idle = calibrated([4.0, 9.0], trace, trace, 0.5)
    assert (idle.threshold, idle.tested) == (None, None)


def test_the_split_depends_on_the_texts_alone():
    trace = synthetic(torch.zeros(40, 2))
    ordering, testing = calibrate.split(trace, 0.25)
    assert (len(ordering.row), len(testing.row)) == (10, 30)
    assert sorted([*ordering.row.tolist(), *testing.row.tolist()]) == list(range(40))
    assert ordering.row.tolist() != list(range(10))
    again, _ = calibrate.split(trace.take(torch.randperm(40)), 0.25)
    assert sorted(again.row.tolist()) == ordering.row.tolist()


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_levels_lie_between_0_and_1(value):
    with pytest.raises(UsageError, match=r"--epsilon .* between 0 and 1"):
        check_levels(value, 0.05, 1000, 1)
    with pytest.raises(UsageError, match=r"--delta .* between 0 and 1"):
        check_levels(0.05, value, 1000, 1)


def test_too_few_texts_are_refused_before_any_test():
    check_levels(0.05, 0.05, 59, 1)
    with pytest.raises(UsageError, match=r"58 texts are left.*it takes 59"):
        check_levels(0.05, 0.05, 58, 1)
    with pytest.raises(UsageError, match="for one of 2 rules it takes 72"):
        check_levels(0.05, 0.05, 71, 2)


def test_certificates_come_back_or_are_refused(tmp_path):
    from dlmkit.errors import CheckpointError

    one = Certificate({"use": "x"}, 0.5, {"epsilon": 0.1}, {"steps": 3}, {"texts": 9})
    path = tmp_path / "c.json"
    one.save(path)
    assert Certificate.load(path) == one
    with pytest.raises(UsageError, match="exists already"):
        one.save(path)
    text = path.read_text()
    for changed in (text.replace('"steps": 3', '"steps": 4'), text[:-9]):
        path.write_text(changed)
        with pytest.raises(CheckpointError, match=r"altered|truncated"):
            Certificate.load(path)
    path.write_text("[]")
    with pytest.raises(UsageError, match="no dlmkit-exit-certificate"):
        Certificate.load(path)

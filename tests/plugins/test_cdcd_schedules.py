"""The warp's algebra against values that do not come from the warp."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmkit.core.context import BuildContext
from dlmkit.core.warp import Warped, isotonic
from dlmkit_cdcd import configs
from dlmkit_cdcd.schedules import FixedDensity, TimeWarp, TimeWarpTable

CONTEXT = BuildContext(length=8)
T_MIN, T_MAX = 0.5, 40.0


def loss_at(t):
    """A cross-entropy curve of the usual shape: flat, a rise near t = 4, flat again."""
    return 3.0 * torch.sigmoid(4.0 * torch.log(t / 4.0)) + 0.2


def trained(schedule, updates=600, rows=64):
    generator = torch.Generator().manual_seed(0)
    for _ in range(updates):
        u = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
        t = schedule.quantile(u)
        noise = 0.1 * torch.randn(rows, generator=generator)
        everything = torch.ones(rows, dtype=torch.bool)
        schedule.observe(t, loss_at(t) + noise, schedule.pdf(t), everything)
    return schedule


def time_warp(**options):
    return TimeWarp(configs.TimeWarp(t_min=T_MIN, t_max=T_MAX, **options), CONTEXT)


def time_warp_table(**options):
    return TimeWarpTable(configs.TimeWarpTable(t_min=T_MIN, t_max=T_MAX, **options), CONTEXT)


SCHEDULES = {
    "uniform": lambda: FixedDensity(configs.VarianceExploding(t_min=T_MIN, t_max=T_MAX), CONTEXT),
    "log-uniform": lambda: FixedDensity(
        configs.VarianceExploding(t_min=T_MIN, t_max=T_MAX, density="log-uniform"), CONTEXT
    ),
    "warp": lambda: trained(time_warp(temperature=1.3, uniform_mix=0.05, ema=0.9), 200),
    "table": lambda: trained(time_warp_table(), 200),
}


@pytest.fixture(scope="module", params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]()


def test_quantile_inverts_cdf(schedule):
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)
    t = schedule.quantile(u)
    assert t[0] == pytest.approx(T_MIN)
    assert t[-1] == pytest.approx(T_MAX)
    assert (t.diff() > 0).all()
    torch.testing.assert_close(schedule.cdf(t), u, atol=1e-9, rtol=0)


def test_pdf_is_the_derivative_of_cdf(schedule):
    t = schedule.quantile(torch.linspace(0.01, 0.99, 397, dtype=torch.float64))
    h = 1e-6
    numeric = (schedule.cdf(t + h) - schedule.cdf(t - h)) / (2 * h)
    smooth = (schedule.pdf(t + h) - schedule.pdf(t - h)).abs() < 1e-3 * schedule.pdf(t)
    assert smooth.float().mean() > 0.9
    torch.testing.assert_close(schedule.pdf(t)[smooth], numeric[smooth], rtol=1e-4, atol=1e-7)


def test_one_over_pdf_is_the_importance_weight(schedule):
    """Draws weighted by 1 / pdf integrate any function of t over [t_min, t_max]."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    t = schedule.quantile(u)
    integral = (torch.cos(t / 5.0) / schedule.pdf(t)).mean()
    exact = 5.0 * (torch.sin(torch.tensor(T_MAX / 5.0)) - torch.sin(torch.tensor(T_MIN / 5.0)))
    assert integral.item() == pytest.approx(exact.item(), abs=2e-2)


def test_level_round_trip(schedule):
    t = torch.linspace(T_MIN, T_MAX, 50, dtype=torch.float64)
    level = schedule.level(t)
    torch.testing.assert_close(schedule.inverse(level.ratio), t)
    torch.testing.assert_close(level.sigma, t)


@pytest.mark.parametrize("build", [time_warp, time_warp_table])
def test_loss_rises_linearly_in_the_warped_time(build):
    """CDCD's principle: after fitting, the loss is close to linear in u."""
    schedule = trained(build())
    u = torch.linspace(0, 1, 200, dtype=torch.float64)
    warped = loss_at(schedule.quantile(u))
    log_uniform = loss_at(T_MIN * (T_MAX / T_MIN) ** u)
    line = loss_at(torch.tensor(T_MIN)) + u * (warped[-1] - warped[0])
    distance, before = (warped - line).abs().mean(), (log_uniform - line).abs().mean()
    assert distance < 0.3
    assert distance < 0.5 * before


def test_fitted_curve_follows_the_loss():
    schedule = trained(time_warp(learning_rate=3e-2), 2000)
    t = torch.linspace(T_MIN + 0.1, 30.0, 60, dtype=torch.float64)
    fitted = schedule._fitted(t, schedule.logits)
    assert (fitted - loss_at(t)).abs().mean() < 0.25


def test_table_starts_at_zero_density_of_the_floor():
    """Subtracting the lowest loss leaves no lump of draws at t_min."""
    schedule = trained(time_warp_table())
    near = schedule.cdf(torch.tensor(T_MIN * 1.2))
    assert near < 0.05


@pytest.mark.parametrize("build", [time_warp, time_warp_table])
def test_rows_not_marked_are_ignored(build):
    first, second = build(), build()
    t = first.quantile(torch.linspace(0.01, 0.99, 32))
    rows = torch.arange(32) % 2 == 0
    poisoned = torch.where(rows, loss_at(t), torch.tensor(1e6))
    first.observe(t, loss_at(t), first.pdf(t), rows)
    second.observe(t, poisoned, second.pdf(t), rows)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("build", [time_warp, time_warp_table])
def test_state_dict_carries_everything(build):
    source, target = trained(build(), 20), build()
    target.load_state_dict(source.state_dict())
    assert not list(source.parameters())
    trained(source, 5)
    trained(target, 5)
    u = torch.linspace(0, 1, 100)
    assert torch.equal(source.quantile(u), target.quantile(u))


def test_no_observation_keeps_the_start():
    schedule = time_warp_table()
    t = schedule.quantile(torch.rand(16))
    schedule.observe(t, t, schedule.pdf(t), torch.zeros(16, dtype=torch.bool))
    assert torch.isfinite(schedule.u_edges).all()
    u = torch.linspace(0, 1, 30, dtype=torch.float64)
    torch.testing.assert_close(
        schedule.quantile(u), T_MIN * (T_MAX / T_MIN) ** u, rtol=0.02, atol=0
    )


def pool_adjacent_violators(values, weights):
    """The textbook algorithm, as an independent oracle."""
    blocks = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            v, w, n = blocks.pop()
            u, x, m = blocks.pop()
            blocks.append([(u * x + v * w) / (x + w), x + w, m + n])
    return [value for value, _, n in blocks for _ in range(n)]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 9)), min_size=1, max_size=12),
)
def test_isotonic_equals_pool_adjacent_violators(pairs):
    values, weights = (torch.tensor(x, dtype=torch.float64) for x in zip(*pairs, strict=True))
    expected = torch.tensor(
        pool_adjacent_violators(values.tolist(), weights.tolist()), dtype=torch.float64
    )
    torch.testing.assert_close(isotonic(values, weights), expected, atol=1e-9, rtol=0)


def test_isotonic_fills_bins_without_samples():
    values = torch.tensor([9.0, 1.0, 9.0, 3.0, 9.0], dtype=torch.float64)
    weights = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0], dtype=torch.float64)
    filled = isotonic(values, weights)
    assert (filled.diff() >= 0).all()
    assert filled.min() == 1.0
    assert filled.max() == 3.0


def test_warped_is_shared():
    assert isinstance(time_warp(), Warped)
    assert isinstance(time_warp_table(), Warped)

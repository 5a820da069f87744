"""Grids: their ends, their order, their formulas, in more than one kind of process."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit_cdcd.configs import TimeWarp as TimeWarpConfig
from dlmkit_cdcd.configs import VarianceExploding
from dlmkit_cdcd.schedules import FixedDensity, TimeWarp
from dlmkit_samplers import configs
from dlmkit_samplers.grids import Karras, Linear, LogUniform, Warped

CONTEXT = BuildContext(length=4)


class Cosine(NoiseSchedule):
    """A variance-preserving schedule: alpha = cos(t), sigma = sin(t)."""

    t_min, t_max = 0.01, 1.55

    def level(self, t: Tensor) -> Level:
        return Level(torch.cos(t), torch.sin(t))

    def inverse(self, level: Level) -> Tensor:
        return torch.atan2(level.sigma, level.alpha)


def warped_schedule():
    schedule = TimeWarp(TimeWarpConfig(t_min=0.5, t_max=60.0, bins=20), CONTEXT)
    widths = torch.linspace(1.0, 9.0, 20, dtype=torch.float64)
    schedule._publish(torch.ones(20, dtype=torch.float64), widths / widths.sum())
    return schedule


SCHEDULES = {
    "ve": FixedDensity(VarianceExploding(t_min=1.0, t_max=300.0), CONTEXT),
    "ve-log": FixedDensity(VarianceExploding(density="log-uniform"), CONTEXT),
    "warp": warped_schedule(),
    "vp": Cosine(),
}
GRIDS = {
    "warped": Warped(configs.Nothing(), CONTEXT),
    "linear": Linear(configs.Nothing(), CONTEXT),
    "log-uniform": LogUniform(configs.Nothing(), CONTEXT),
    "karras": Karras(configs.Karras(), CONTEXT),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
@pytest.mark.parametrize("n", [1, 2, 3, 50, 1000])
def test_points_fall_from_end_to_end(grid, schedule, n):
    points = grid.points(schedule, n)
    assert points.dtype == torch.float64
    assert points.shape == (n,)
    assert points[0] == schedule.t_max
    assert n == 1 or points[-1] == schedule.t_min
    assert bool((points.diff() < 0).all())


def ratios(grid, schedule, n):
    alpha, sigma = schedule.level(grid.points(schedule, n))
    return sigma / alpha


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_log_uniform_ratios_are_geometric(schedule):
    steps = ratios(GRIDS["log-uniform"], schedule, 9).log().diff()
    torch.testing.assert_close(steps, steps.mean().expand(8))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_karras_is_equation_5(schedule):
    n, rho = 9, 7.0
    (high, low) = ratios(GRIDS["karras"], schedule, 2)
    expected = [
        (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        for i in range(n)
    ]
    torch.testing.assert_close(ratios(GRIDS["karras"], schedule, n), torch.stack(expected))


@pytest.mark.parametrize("name", ["ve", "ve-log", "warp"])
def test_warped_points_part_the_training_draws_evenly(name):
    schedule = SCHEDULES[name]
    u = schedule.cdf(GRIDS["warped"].points(schedule, 11))
    torch.testing.assert_close(u, torch.linspace(1.0, 0.0, 11, dtype=torch.float64))


def test_warped_follows_what_the_schedule_learnt():
    """More draws at high noise, more points there."""
    points = GRIDS["warped"].points(SCHEDULES["warp"], 101)
    even = GRIDS["linear"].points(SCHEDULES["warp"], 101)
    assert int((points > 30).sum()) > int((even > 30).sum()) + 15


def test_linear_is_even_in_time():
    steps = GRIDS["linear"].points(SCHEDULES["ve"], 14).diff()
    torch.testing.assert_close(steps, torch.full((13,), -299 / 13).double())


@given(st.floats(0.3, 20.0), st.integers(2, 60))
def test_karras_goes_from_linear_towards_geometric(rho, n):
    schedule = SCHEDULES["ve"]
    points = Karras(configs.Karras(rho=rho), CONTEXT).points(schedule, n)
    assert bool((points.diff() < 0).all())
    assert points[0] == 300.0
    assert points[-1] == 1.0


def test_karras_with_rho_1_is_linear_in_the_ratio():
    points = Karras(configs.Karras(rho=1.0), CONTEXT).points(SCHEDULES["ve"], 12)
    torch.testing.assert_close(points, GRIDS["linear"].points(SCHEDULES["ve"], 12))
    assert math.isclose(points[1], 300 - 299 / 11)

"""Grids: their ends, their order, their formulas, in more than one kind of process."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from dlmkit.core.context import BuildContext
from dlmkit.core.options import Nothing
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.errors import DataError
from dlmkit_cdcd.configs import TimeWarp as TimeWarpConfig
from dlmkit_cdcd.configs import VarianceExploding
from dlmkit_cdcd.schedules import FixedDensity, TimeWarp
from dlmkit_samplers import configs
from dlmkit_samplers.entropic import Fitted, SquareRootEntropic
from dlmkit_samplers.grids import Arctan, Karras, Linear, LogUniform, WarpedGrid

CONTEXT = BuildContext(length=4)


class Cosine(NoiseSchedule):
    """A variance-preserving schedule: alpha = cos(t), sigma = sin(t)."""

    t_min, t_max = 0.01, 1.55

    def level(self, t: Tensor) -> Level:
        return Level(torch.cos(t), torch.sin(t))

    def inverse(self, ratio: Tensor) -> Tensor:
        return torch.atan(ratio)


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
    "warped": WarpedGrid(Nothing(), CONTEXT),
    "linear": Linear(Nothing(), CONTEXT),
    "log-uniform": LogUniform(Nothing(), CONTEXT),
    "karras": Karras(configs.Karras(), CONTEXT),
    "arctan": Arctan(Nothing(), CONTEXT),
    "sqrt-entropic": SquareRootEntropic(configs.Entropic(), CONTEXT),
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


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_arctan_is_theorem_3_1_of_align_your_steps(schedule):
    high, low = ratios(GRIDS["arctan"], schedule, 2)
    u = [i / 8 for i in range(9)]
    expected = [torch.tan((1 - v) * high.atan() + v * low.atan()) for v in u]
    torch.testing.assert_close(ratios(GRIDS["arctan"], schedule, 9), torch.stack(expected))


def entropic(mix=1e-6):
    return SquareRootEntropic(configs.Entropic(log_uniform_mix=mix), CONTEXT)


def test_a_profile_linear_in_sigma_gives_karras_with_rho_2():
    """dF / d ln s is then proportional to s, and the integral of its root to sqrt(s)."""
    expected = Karras(configs.Karras(rho=2.0), CONTEXT).points(SCHEDULES["ve"], 30)
    found = entropic().points(SCHEDULES["ve"], 30)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_profile_linear_in_log_sigma_gives_log_uniform_points():
    expected = GRIDS["log-uniform"].points(SCHEDULES["ve-log"], 30)
    torch.testing.assert_close(GRIDS["sqrt-entropic"].points(SCHEDULES["ve-log"], 30), expected)


def test_a_mix_of_one_is_log_uniform():
    expected = GRIDS["log-uniform"].points(SCHEDULES["warp"], 30)
    torch.testing.assert_close(entropic(1.0).points(SCHEDULES["warp"], 30), expected)


def test_steps_of_equal_error():
    """(Change of F) x (log step) is the same for all neighbours, and less in sum than elsewhere."""

    def errors(grid):
        points = grid.points(SCHEDULES["warp"], 200)
        return SCHEDULES["warp"].cdf(points).diff() * points.log().diff()

    own = errors(entropic())
    assert float(own.std() / own.mean()) < 0.05
    assert all(float(errors(grid).sum()) >= float(own.sum()) for grid in GRIDS.values())


def profile(path, **tensors):
    if path.suffix == ".json":
        path.write_text(json.dumps({name: value.tolist() for name, value in tensors.items()}))
    else:
        save_file({name: value.clone() for name, value in tensors.items()}, path)
    return Fitted(configs.Fitted(path=str(path), log_uniform_mix=1e-6), CONTEXT)


SIGMA = torch.linspace(300.0, 1.0, 400, dtype=torch.float64)


@pytest.mark.parametrize("name", ["profile.json", "profile.safetensors"])
@pytest.mark.parametrize("schedule", ["ve", "ve-log", "warp", "vp"])
def test_fitted_follows_the_file_whatever_the_schedule_learnt(tmp_path, name, schedule):
    grid = profile(tmp_path / name, sigma=SIGMA, entropy=0.3 + 0.01 * SIGMA)
    points = grid.points(SCHEDULES[schedule], 30)
    assert points[0] == SCHEDULES[schedule].t_max
    assert bool((points.diff() < 0).all())
    if schedule == "ve":
        expected = Karras(configs.Karras(rho=2.0), CONTEXT).points(SCHEDULES["ve"], 30)
        torch.testing.assert_close(points, expected, rtol=0.02, atol=0.02)


def test_fitted_takes_the_mean_over_rows_of_a_trace(tmp_path):
    entropy = 0.3 + 0.01 * SIGMA
    rows = {
        "statistics.sigma": SIGMA.expand(2, -1).clone(),
        "statistics.entropy": torch.stack((1.5 * entropy, 0.5 * entropy)),
    }
    one = profile(tmp_path / "one.safetensors", sigma=SIGMA, entropy=entropy)
    several = profile(tmp_path / "several.trace", **rows)
    torch.testing.assert_close(several.profile, one.profile)
    torch.testing.assert_close(several.log_s, one.log_s)


def test_a_noisy_profile_is_made_monotone(tmp_path):
    grid = profile(tmp_path / "a.json", sigma=SIGMA, entropy=0.01 * SIGMA + 0.3 * torch.sin(SIGMA))
    assert bool((grid.profile.diff() >= 0).all())
    assert bool((grid.points(SCHEDULES["ve"], 200).diff() < 0).all())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"sigma": SIGMA}, "holds no 'entropy'"),
        ({"sigma": SIGMA, "entropy": SIGMA[:-1]}, "400 levels and 399 entropies"),
        ({"sigma": -SIGMA, "entropy": SIGMA}, "all levels positive"),
        ({"sigma": SIGMA, "entropy": SIGMA * torch.nan}, "entropies finite"),
        ({"sigma": SIGMA[:1], "entropy": SIGMA[:1]}, "1 levels"),
    ],
)
def test_files_that_are_no_profile_are_refused(tmp_path, tensors, message):
    with pytest.raises(DataError, match=message):
        profile(tmp_path / "a.safetensors", **tensors)


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", '{"sigma": "x", "entropy": [1]}'])
@pytest.mark.parametrize("name", ["a.json", "a.safetensors"])
def test_files_that_cannot_be_read_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match="cannot be read"):
        Fitted(configs.Fitted(path=str(path)), CONTEXT)
    with pytest.raises(DataError, match="cannot be read"):
        Fitted(configs.Fitted(path=str(tmp_path / "absent" / name)), CONTEXT)

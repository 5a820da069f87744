"""The warp of schedules whose density is known."""

import math

import pytest
import torch

from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit_viewers.warp import warp


def test_log_uniform_draws_are_flat_in_ln_sigma(build):
    found = warp(
        build("schedule", "variance-exploding", t_min=0.5, t_max=20.0, density="log-uniform"), 50
    )
    assert not found["learned"]
    assert found["sigma"][0] == pytest.approx(0.5)
    assert found["sigma"][-1] == pytest.approx(20.0)
    assert found["cdf"] == pytest.approx([i / 49 for i in range(50)], abs=1e-9)
    assert found["density"] == pytest.approx([1 / math.log(40)] * 49)
    assert found["pdf"] == pytest.approx([1 / (s * math.log(40)) for s in found["sigma"]])


def test_a_learned_warp_integrates_to_one(build):
    schedule = build("schedule", "time-warp-table", t_min=0.5, t_max=20.0, fade=1)
    t = torch.linspace(0.6, 19.0, 300)
    rows = torch.ones(300, dtype=torch.bool)
    schedule.observe(t, torch.log(t).clamp(min=0.0) * 2, torch.ones(300), rows)
    found = warp(schedule)
    assert found["learned"]
    steps = torch.tensor(found["sigma"]).log().diff()
    total = float((torch.tensor(found["density"]) * steps).sum())
    assert total == pytest.approx(1.0)
    assert found["cdf"] == sorted(found["cdf"])
    middle = torch.tensor(found["density"])[torch.tensor(found["middle"]) > 2.0].mean()
    assert middle > 3 * torch.tensor(found["density"])[torch.tensor(found["middle"]) < 0.9].mean()


def test_sigma_is_the_ratio_of_a_process_that_shrinks():
    """A schedule by angle: alpha = cos t, sigma = sin t."""

    class Angle(NoiseSchedule):
        t_min, t_max = 0.1, 1.4

        def level(self, t):
            return Level(torch.cos(t), torch.sin(t))

        def inverse(self, ratio):
            return torch.atan(ratio)

    found = warp(Angle(), 30)
    assert found["sigma"][-1] == pytest.approx(math.tan(1.4))
    times = [math.atan(sigma) for sigma in found["sigma"]]
    assert found["cdf"] == pytest.approx([(t - 0.1) / 1.3 for t in times], abs=1e-9)

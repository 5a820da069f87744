"""LangFlow: the Gumbel schedule against closed forms, and its fit."""

import math
from pathlib import Path

import pytest
import torch

from dlmkit.core.context import BuildContext
from dlmkit.noise import Noise
from dlmkit_langflow import model
from dlmkit_langflow.model import Gumbel, entropy
from dlmkit_langflow.plugin import GumbelCurve

OWT = {"location": 4.723, "scale": 0.852, "height": 7.02}


def gumbel(**options):
    return Gumbel(GumbelCurve(**{**OWT, **options}), BuildContext(length=1))


def test_range_of_the_released_model():
    """The released OWT model's gamma lies in [2.64, 14.53]."""
    schedule = gumbel()
    assert schedule.t_min == pytest.approx(2.64, abs=0.005)
    assert schedule.t_max == pytest.approx(14.53, abs=0.005)


def test_time_is_the_log_noise_to_signal_ratio():
    t = torch.linspace(-3.0, 9.0, 20, dtype=torch.float64)
    alpha, sigma = gumbel().level(t)
    torch.testing.assert_close(sigma**2 / alpha**2, t.exp())
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))


def test_quantile_is_the_gumbel_variable():
    u = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    expected = 4.723 - 0.852 * torch.log(-torch.log(u))
    torch.testing.assert_close(gumbel().quantile(u), expected, atol=1e-4, rtol=0)


def test_density_is_the_slope_of_the_entropy():
    schedule = gumbel()
    t = torch.linspace(3.0, 12.0, 30, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(entropy(t, schedule.curve).sum(), t)
    torch.testing.assert_close(schedule.pdf(t.detach()), slope / 7.02, atol=0, rtol=1e-4)


def test_fit_finds_the_curve():
    schedule = gumbel(location=2.0, scale=2.0, height=3.0, learning_rate=0.05)
    truth = torch.tensor([4.0, math.log(0.8), math.log(5.0)], dtype=torch.float64)
    for step in range(300):
        u = Noise.keyed(0, torch.arange(64), step).uniform(0, dtype=torch.float64)
        t = schedule.quantile(u)
        schedule.observe(t, entropy(t, truth), schedule.pdf(t), torch.ones(64, dtype=torch.bool))
    torch.testing.assert_close(schedule.curve, truth, atol=0.02, rtol=0)


def test_a_model_is_150_lines_declarations_included():
    files = Path(model.__file__).parent.glob("*.py")
    assert sum(len(file.read_text().splitlines()) for file in files) <= 150

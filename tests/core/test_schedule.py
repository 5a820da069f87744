"""What a schedule gets without writing it: its inverse, and that it learns nothing."""

import math

import pytest
import torch

from dlmkit.core.schedule import Level, NoiseSchedule


class Cosine(NoiseSchedule):
    """Says its level alone."""

    t_min, t_max = 0.05, 1.5

    def level(self, t):
        return Level(torch.cos(t), torch.sin(t))


class Learning(Cosine):
    def observe(self, t, loss, pdf, rows):
        pass


def test_a_ratio_is_noise_over_signal_and_none_is_left_at_the_clean_level():
    level = Level(torch.tensor([0.5, 1.0]), torch.tensor([2.0, 0.0]))
    assert level.ratio.tolist() == [4.0, 0.0]
    assert Level.of_ratio(level.ratio).ratio.tolist() == [4.0, 0.0]
    assert Level.of_ratio(level.ratio).alpha.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_time_of_a_ratio_is_found_without_a_formula(dtype):
    t = torch.linspace(0.05, 1.5, 101, dtype=dtype).view(1, 101).clamp(0.05, 1.5)
    found = Cosine().inverse(Cosine().level(t).ratio)
    assert (found.dtype, found.shape) == (dtype, t.shape)
    torch.testing.assert_close(found, t, rtol=0.0, atol=8 * torch.finfo(dtype).eps)


def test_a_ratio_that_no_time_has_gives_the_nearer_end():
    found = Cosine().inverse(torch.tensor([0.0, math.inf], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.05, 1.5], abs=1e-15)


def test_a_schedule_learns_if_it_says_what_from():
    assert not Cosine().learns
    assert Learning().learns
    row = torch.ones(1)
    assert Cosine().observe(row, row, row, row > 0) is None

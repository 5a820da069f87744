"""What the pictures of an analysis show, read from their axes."""

import math

import numpy as np
import pytest

from dlmkit.report import panel, whole_numbers
from dlmkit_viewers import plots


def test_a_smoothed_density_keeps_its_shape_and_loses_its_ripple():
    place = np.linspace(math.log(0.5), math.log(20.0), 199)
    bell = np.exp(-0.5 * ((place - 1.0) / 0.5) ** 2)
    ripple = bell * (1.0 + 0.3 * np.sin(np.arange(199) * 2.0 * math.pi / 5.0))
    found = np.array(plots.smoothed({"middle": np.exp(place), "density": ripple}))
    turns = np.diff(np.sign(np.diff(found[found > 0.01])))
    assert np.count_nonzero(turns) == 1, "one peak, and no other"
    assert np.abs(found - bell).max() < 0.05
    flat = plots.smoothed({"middle": np.exp(place), "density": np.full(199, 0.3)})
    assert flat == pytest.approx([0.3] * 199)


@pytest.mark.parametrize("last", [1, 2, 4, 7, 96])
def test_what_counts_has_ticks_at_whole_numbers(last):
    figure, axes = panel()
    axes.plot(range(1, last + 1), range(last))
    whole_numbers(axes.xaxis, axes.yaxis)
    figure.canvas.draw()
    for ticks in (axes.get_xticks(), axes.get_yticks()):
        assert len(ticks) > 0
        assert all(float(tick).is_integer() for tick in ticks)

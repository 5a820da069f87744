"""Where a schedule draws its training times, by noise level."""

from __future__ import annotations

from typing import Any

import torch

from dlmkit import devices
from dlmkit.core.schedule import NoiseSchedule
from dlmkit_viewers.trajectory import numbers

POINTS = 200


@torch.no_grad()
def warp(schedule: NoiseSchedule, points: int = POINTS) -> dict[str, Any]:
    """The distribution of training draws over the noise-to-signal ratio sigma / alpha.

    ``sigma`` is log-spaced over the schedule's range and ``cdf`` the share of draws below it.
    ``density`` is per unit of ln sigma, the mean over each of the ``points - 1`` intervals, so it
    integrates to 1 exactly; ``middle`` are their geometric means. ``pdf`` is the schedule's own
    at ``sigma``, per unit of t.
    """
    device = devices.of(schedule)
    ends = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64, device=device)
    low, high = _ratio(schedule, ends).log().tolist()
    log_sigma = torch.linspace(low, high, points, dtype=torch.float64, device=device)
    t = _times(schedule, log_sigma.exp(), ends)
    cdf = schedule.cdf(t).clamp(0.0, 1.0)
    middle = (0.5 * (log_sigma[1:] + log_sigma[:-1])).exp()
    return {
        "learned": schedule.learns,
        "sigma": numbers(log_sigma.exp()),
        "cdf": numbers(cdf),
        "pdf": numbers(schedule.pdf(t)),
        "middle": numbers(middle),
        "density": numbers(cdf.diff() / log_sigma.diff()),
    }


def _ratio(schedule: NoiseSchedule, t: torch.Tensor) -> torch.Tensor:
    return schedule.level(t).ratio


def _times(schedule: NoiseSchedule, sigma: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    t = schedule.inverse(sigma)
    return t.clamp(ends[0], ends[1])

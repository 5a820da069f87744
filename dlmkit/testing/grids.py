"""Checks of grids."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from dlmkit.core.schedule import NoiseSchedule
from dlmkit.testing import accelerators
from dlmkit.testing.compare import agree, finite, require
from dlmkit.testing.parts import Nothing, Plain, Preserving
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

KIND = "grid"
SIZES = (1, 2, 3, 16, 257)


def schedules(subject: Subject) -> Iterator[NoiseSchedule]:
    """A variance-exploding and a variance-preserving schedule, and one that moves its draws."""
    yield Plain(Nothing(), subject.parts)
    yield Preserving(Nothing(), subject.parts)
    yield _Squared(Nothing(), subject.parts)


class _Squared(Plain):
    """Most draws fall near t_min."""

    def quantile(self, u: torch.Tensor) -> torch.Tensor:
        return self.t_min + u * u * (self.t_max - self.t_min)

    def cdf(self, t: torch.Tensor) -> torch.Tensor:
        return ((t - self.t_min) / (self.t_max - self.t_min)).clamp(min=0.0).sqrt()

    def pdf(self, t: torch.Tensor) -> torch.Tensor:
        return 0.5 / (self.cdf(t) * (self.t_max - self.t_min))


@check(KIND)
def gives_n_float64_points(subject: Subject) -> None:
    """It gives n finite float64 times, for one point as for many"""
    for schedule in schedules(subject):
        for n in SIZES:
            points = subject.built.points(schedule, n)
            require(points.shape == (n,), f"asked for {n} points it gave {tuple(points.shape)}")
            require(points.dtype == torch.float64, f"its dtype is {points.dtype}")
            finite(points, "the points")


@check(KIND)
def runs_on_an_accelerator(subject: Subject) -> None:
    """On an accelerator it gives what it gives on the CPU"""
    for here, there in zip(schedules(subject), schedules(subject), strict=True):
        bound = torch.tensor(float(here.t_max), dtype=torch.float64)  # so that it has a device
        for schedule in (here, there):
            schedule.register_buffer("bound", bound)
        with accelerators.accelerator() as device:
            points = subject.on(device).build().points(there.to(device), 16)
            agree(points.cpu(), subject.built.points(here, 16), accelerators.RESULTS)


@check(KIND)
def falls_strictly(subject: Subject) -> None:
    """Its points fall strictly"""
    for schedule in schedules(subject):
        for n in SIZES:
            falls = subject.built.points(schedule, n).diff() < 0
            require(falls.all(), f"{n} points on {type(schedule).__name__} do not fall strictly")


@check(KIND)
def spans_the_schedule(subject: Subject) -> None:
    """It begins at t_max exactly, and ends at t_min exactly if it has two points or more"""
    for schedule in schedules(subject):
        for n in SIZES:
            points = subject.built.points(schedule, n).tolist()
            require(points[0] == schedule.t_max, f"it begins at {points[0]}, not {schedule.t_max}")
            if n > 1:
                require(points[-1] == schedule.t_min, f"it ends at {points[-1]}")


@check(KIND)
def leaves_the_schedule(subject: Subject) -> None:
    """The same schedule gives the same points, and is not changed"""
    for schedule in schedules(subject):
        schedule.register_buffer("table", torch.linspace(0.0, 1.0, 5))
        before = (copy.deepcopy(schedule.state_dict()), schedule.t_min, schedule.t_max)
        torch.manual_seed(1)
        first = subject.built.points(schedule, 16)
        torch.manual_seed(2)
        agree(subject.built.points(schedule, 16), first, "two calls with one schedule")
        agree(schedule.state_dict(), before[0], "the schedule's tables before and after")
        require((schedule.t_min, schedule.t_max) == before[1:], "it moved t_min or t_max")

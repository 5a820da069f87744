"""Checks of noise schedules; times are float64 unless a check says otherwise."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.schedule import NoiseSchedule
from dlmkit.testing import accelerators
from dlmkit.testing.compare import Exercise, agree, finite, pure, require
from dlmkit.testing.outcome import NotApplicable
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

KIND = "schedule"
ROWS = 256


def times(schedule: NoiseSchedule, count: int = 513) -> Tensor:
    """``count`` times from t_min to t_max, denser towards t_min."""
    u = torch.linspace(0.0, 1.0, count, dtype=torch.float64) ** 2
    t = schedule.t_min + u * (schedule.t_max - schedule.t_min)
    t[-1] = schedule.t_max
    return t


def ratio(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """sigma / alpha at ``t``."""
    return schedule.level(t).ratio.detach()


def observations(schedule: NoiseSchedule, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(t, loss, pdf, usable) of one step: a loss that rises with t, every fourth row unusable."""
    generator = torch.Generator().manual_seed(seed)
    u = (torch.arange(ROWS) + torch.rand(ROWS, generator=generator)).double() / ROWS
    t = schedule.quantile(u).detach()
    share = (t - schedule.t_min) / (schedule.t_max - schedule.t_min)
    usable = torch.arange(ROWS) % 4 != 3
    return t, 5.0 * share.clamp(min=0.0) ** 0.5, schedule.pdf(t).detach(), usable


def observed(subject: Subject, steps: int = 6) -> NoiseSchedule:
    """A fresh schedule that has seen ``steps`` optimiser steps."""
    schedule = learned(subject)
    for seed in range(steps):
        schedule.observe(*observations(schedule, seed))
    return schedule


def learned(subject: Subject) -> NoiseSchedule:
    """A fresh learned schedule. Raises NotApplicable for another."""
    schedule: NoiseSchedule = subject.build()
    if not schedule.learns:
        raise NotApplicable("not a learned schedule")
    return schedule


def states(subject: Subject) -> Iterator[NoiseSchedule]:
    """The schedule as built, and once it has learned, if it does."""
    yield subject.build()
    if subject.built.learns:
        yield observed(subject)


def _exercise(subject: Subject) -> Exercise:
    schedule = subject.built
    u = torch.linspace(0.0, 1.0, 17, dtype=torch.float64)

    @torch.no_grad()
    def call(t: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        level = schedule.level(t)
        back = schedule.inverse(level.ratio)
        return (*level, back, schedule.cdf(t), schedule.pdf(t), schedule.quantile(u))

    return Exercise(call, (times(schedule, 17), u), 1e-12)


pure(KIND, _exercise)


@check(KIND)
def ends_finite(subject: Subject) -> None:
    """t_min lies below t_max, and alpha and sigma are positive and finite at both"""
    for schedule in states(subject):
        require(schedule.t_min < schedule.t_max, "t_min does not lie below t_max")
        t = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
        for name, value in zip(("alpha", "sigma"), schedule.level(t), strict=True):
            finite(value, f"{name} at t_min and t_max")
            require(
                (value > 0).all(), f"{name} must be above 0 at t_min and t_max: {value.tolist()}"
            )


@check(KIND)
@torch.no_grad()
def monotone(subject: Subject) -> None:
    """sigma / alpha rises strictly with t"""
    for schedule in states(subject):
        t = times(schedule)
        falls = (ratio(schedule, t).diff() <= 0).nonzero()[:, 0]
        require(len(falls) == 0, f"it does not rise after t = {t[falls[:1]].tolist()}")


@check(KIND)
@torch.no_grad()
def inverse_round_trip(subject: Subject) -> None:
    """inverse(level(t).ratio) is t"""
    for schedule in states(subject):
        t = times(schedule)
        agree(schedule.inverse(ratio(schedule, t)), t, "t and inverse(level(t).ratio)", 1e-6)


@check(KIND)
@torch.no_grad()
def quantile_in_range(subject: Subject) -> None:
    """quantile maps [0, 1] into [t_min, t_max] and rises"""
    for schedule in states(subject):
        t = schedule.quantile(torch.linspace(0.0, 1.0, 513, dtype=torch.float64))
        finite(t, "quantile")
        slack = 1e-9 * (schedule.t_max - schedule.t_min)
        inside = (t >= schedule.t_min - slack) & (t <= schedule.t_max + slack)
        require(inside.all(), f"it reaches from {t.min():.6g} to {t.max():.6g}")
        require((t.diff() >= 0).all(), "it falls somewhere")


@check(KIND)
@torch.no_grad()
def cdf_inverts_quantile(subject: Subject) -> None:
    """cdf(quantile(u)) is u"""
    for schedule in states(subject):
        u = torch.linspace(0.0, 1.0, 513, dtype=torch.float64)[1:-1]
        agree(schedule.cdf(schedule.quantile(u)), u, "u and cdf(quantile(u))", 1e-5)


@check(KIND)
@torch.no_grad()
def pdf_is_the_derivative(subject: Subject) -> None:
    """pdf is the derivative of cdf"""
    for schedule in states(subject):
        edges = schedule.quantile(torch.linspace(0.0, 1.0, 65, dtype=torch.float64))
        width = edges.diff()
        inner = (torch.arange(256, dtype=torch.float64) + 0.5) / 256
        density = schedule.pdf(edges[:-1, None] + width[:, None] * inner)
        require((density > 0).all(), "the density is not positive everywhere")
        integral, rise = density.mean(dim=1) * width, schedule.cdf(edges).diff()
        gap = (integral - rise).abs().max().item() * 64
        require(gap < 0.02, f"its integral and the cdf's rise differ by {gap:.1%} of a cell")


@check(KIND)
@torch.no_grad()
def any_shape_and_dtype(subject: Subject) -> None:
    """Times of any shape and float dtype give values of theirs, and under autocast the same"""
    schedule = subject.built
    for dtype in (torch.float32, torch.float64):
        t = times(schedule, 12).to(dtype).clamp(schedule.t_min, schedule.t_max).view(3, 4)
        u = torch.linspace(0.1, 0.9, 12, dtype=dtype).view(3, 4)
        for lower in (False, True):
            with torch.autocast("cpu", torch.bfloat16, lower):
                level = schedule.level(t)
                values = (*level, schedule.inverse(level.ratio), schedule.cdf(t), schedule.pdf(t))
                values = (*values, schedule.quantile(u))
            where = " under autocast to bf16" * lower
            for value in values:
                shape = tuple(value.shape)
                require(shape == (3, 4), f"the shape (3, 4) became {shape}")
                require(value.dtype == dtype, f"{dtype} became {value.dtype}{where}")


@check(KIND)
@torch.no_grad()
def state_dict_round_trip(subject: Subject) -> None:
    """A fresh schedule that loads the state_dict is the same schedule, and goes on the same"""
    for schedule in states(subject):
        again = subject.build(seed=1)
        again.load_state_dict(schedule.state_dict())
        for seed in range(100, 103):
            seen = observations(schedule, seed)
            schedule.observe(*seen)
            again.observe(*seen)
        u, t = torch.linspace(0.0, 1.0, 65, dtype=torch.float64), times(schedule)
        agree(again.quantile(u), schedule.quantile(u), "the quantiles")
        agree(again.level(t), schedule.level(t), "the levels")


@check(KIND)
@torch.no_grad()
def learns_on_an_accelerator(subject: Subject) -> None:
    """A learned schedule learns on an accelerator what it learns on the CPU"""
    here, seen = learned(subject), observations(learned(subject))
    with accelerators.accelerator() as device:
        there = learned(subject).to(device)
        for _ in range(2):
            here.observe(*seen)
            there.observe(*rows.to(seen, device))
        u = torch.linspace(0.0, 1.0, 65, dtype=torch.float64)
        times = there.quantile(u.to(device))
        require(times.device == device, "its quantiles are not on the device of its tensors")
        agree(times.cpu(), here.quantile(u), accelerators.RESULTS)


@check(KIND)
@torch.no_grad()
def learns(subject: Subject) -> None:
    """A learned schedule moves its draws to where the loss changes"""
    before, after = learned(subject), observed(subject, 10)
    u = torch.linspace(0.0, 1.0, 65, dtype=torch.float64)
    require((before.quantile(u) - after.quantile(u)).abs().max() > 0, "10 steps changed nothing")


@check(KIND)
@torch.no_grad()
def ignores_unusable_rows(subject: Subject) -> None:
    """What a learned schedule may not use, even if not a number, leaves no trace"""
    first, second = learned(subject), learned(subject)
    t, loss, pdf, usable = observations(first)
    first.observe(t, loss, pdf, usable)
    second.observe(t, torch.where(usable, loss, 1e6), pdf, usable)
    agree(second.state_dict(), first.state_dict(), "states after other losses of unusable rows")


@check(KIND)
@torch.no_grad()
def nothing_usable_is_harmless(subject: Subject) -> None:
    """A step without a usable row leaves a learned schedule finite"""
    schedule = observed(subject, 3)
    t, loss, pdf, usable = observations(schedule)
    schedule.observe(t, loss, pdf, torch.zeros_like(usable))
    finite(schedule.state_dict(), "the state")


@check(KIND)
@torch.no_grad()
def processes_agree(subject: Subject) -> None:
    """Rows gathered from several processes give what one process gives, and on each the same"""
    alone = observed(subject, 5)
    replicas = [copy.deepcopy(alone) for _ in range(2)]
    seen = observations(alone, 9)
    dealt = torch.cat((torch.arange(0, ROWS, 2), torch.arange(1, ROWS, 2)))
    alone.observe(*seen)
    for seed, replica in enumerate(replicas):
        torch.manual_seed(seed)
        replica.observe(*(column[dealt] for column in seen))
    agree(replicas[0].state_dict(), replicas[1].state_dict(), "the states of two processes")
    u = torch.linspace(0.0, 1.0, 65, dtype=torch.float64)
    agree(replicas[0].quantile(u), alone.quantile(u), "the draws of two processes and one", 1e-6)

"""Checks of guidance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.denoise import CountingDenoise, Denoise, Prediction
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.testing.compare import Exercise, agree, finite, leaves, pure, require
from dlmkit.testing.parts import LENGTH
from dlmkit.testing.samplers import ROWS, ladder, start
from dlmkit.testing.spaces import clean, random_ids
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

KIND = "guidance"


@torch.no_grad()
def known(subject: Subject) -> Conditioning:
    """The first two positions are given; the last of every other row is padding."""
    space = subject.space
    x0 = space.embed(random_ids(space))
    given = (torch.arange(LENGTH) < 2).expand(ROWS, -1)
    attend = torch.arange(LENGTH) < (LENGTH - torch.arange(ROWS) % 2)[:, None]
    return Conditioning.of(space.corruption.input(x0, clean(x0)), given, attend)


def twice(denoise: Denoise, subject: Subject) -> Any:
    """Calls ``denoise`` at two levels, the second fed what the first gives back."""
    high, low = ladder(subject)[::3]

    @torch.no_grad()
    def call(x: Tensor, high: Level, low: Level, known: Conditioning) -> tuple[Any, ...]:
        first = denoise(x, high, denoise.start(x), known)
        second = denoise(x, low, first.feedback, known)
        return first.x0_step, second.x0_step, second.query, second.x0_mean, second.feedback

    return call, (start(subject), high, low, known(subject))


def _exercise(subject: Subject) -> Exercise:
    call, inputs = twice(subject.built.wrap(subject.denoise), subject)
    return Exercise(call, inputs, 1e-4)


pure(KIND, _exercise)


def _predictions(subject: Subject) -> tuple[Prediction, Prediction]:
    """(guided, plain) at one level."""
    guided = subject.built.wrap(subject.denoise)
    x, level = start(subject), ladder(subject)[0]
    with torch.no_grad():
        given = known(subject)
        first: Prediction = guided(x, level, guided.start(x), given)
        plain = subject.denoise(x, level, subject.denoise.start(x), given)
    return first, plain


@check(KIND)
def wraps_a_denoiser(subject: Subject) -> None:
    """wrap gives a denoiser whose predictions are finite"""
    guided = subject.built.wrap(subject.denoise)
    require(isinstance(guided, Denoise), f"wrap gave a {type(guided).__name__}, no Denoise")
    finite(_predictions(subject)[0].x0_step, "its x0_step")


@check(KIND)
def statistics_are_left_alone(subject: Subject) -> None:
    """What statistics and decoding read is the inner prediction's"""
    guided, plain = _predictions(subject)
    for name in ("query", "lse", "x0_mean"):
        agree(getattr(guided, name), getattr(plain, name), f"{name} with and without it", 1e-6)


@check(KIND)
def given_positions_stay(subject: Subject) -> None:
    """At given positions x0_step is the inner prediction's"""
    guided, plain = _predictions(subject)
    given = known(subject).given
    agree(guided.x0_step[given], plain.x0_step[given], "x0_step at given positions", 1e-5)


@check(KIND)
def feeds_back_what_it_takes(subject: Subject) -> None:
    """Its feedback has the form of its start, row-first, one entry per branch"""
    guided = subject.built.wrap(subject.denoise)
    x, level = start(subject), ladder(subject)[0]
    with torch.no_grad():
        begin = guided.start(x)
        feedback = guided(x, level, begin, known(subject)).feedback
        shapes = [[tuple(leaf.shape) for leaf in leaves(value)] for value in (begin, feedback)]
        require(shapes[0] == shapes[1], f"it starts with {shapes[0]} and feeds back {shapes[1]}")
        rows.where(torch.ones(ROWS, dtype=torch.bool), feedback, begin)


@check(KIND)
def evaluates_alike(subject: Subject) -> None:
    """Every call takes the same number of evaluations, in whole batches"""
    counting = CountingDenoise(subject.denoise)
    guided = subject.built.wrap(counting)
    x, levels, counts = start(subject), ladder(subject), []
    with torch.no_grad():
        previous = guided.start(x)
        for level in levels[:3]:
            before = counting.rows
            previous = guided(x, level, previous, known(subject)).feedback
            counts.append(counting.rows - before)
    even = len(set(counts)) == 1 and counts[0] % ROWS == 0 and counts[0] > 0
    require(even, f"three calls on {ROWS} rows took {counts} row evaluations")

"""Checks of statistics."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.exits import BUILT_IN
from dlmkit.rows import take
from dlmkit.testing.compare import Exercise, agree, finite, pure, require
from dlmkit.testing.parts import LENGTH
from dlmkit.testing.spaces import random_query
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

KIND = "statistic"
ROWS = 6


@torch.no_grad()
def prediction(space: EmbeddingSpace, query: Tensor) -> Prediction:
    """What a denoiser with this query predicts."""
    mean, lse = space.read(query)
    return Prediction(mean, query, lse, mean, ())


def pair(space: EmbeddingSpace) -> tuple[Prediction, Prediction]:
    """(now, before): two predictions that differ at every position."""
    query = random_query(space)
    return prediction(space, query), prediction(space, 0.7 * query.flip(0))


def generated() -> Tensor:
    """The first positions of some rows are given."""
    return torch.arange(LENGTH) >= (torch.arange(ROWS) % 4)[:, None]


def _exercise(subject: Subject) -> Exercise:
    statistic, space = subject.built, subject.space

    @torch.no_grad()
    def call(now: Prediction, before: Prediction, has: Tensor, mask: Tensor) -> Tensor:
        value: Tensor = statistic(space, now, before, has, mask)
        return value

    has_before = torch.arange(ROWS) != 1
    return Exercise(call, (*pair(space), has_before, generated()), 1e-5)


pure(KIND, _exercise)


@check(KIND)
@torch.no_grad()
def gives_a_number_a_position(subject: Subject) -> None:
    """It gives one finite number per position"""
    values = subject.built.per_position(subject.space, *pair(subject.space))
    require(values.shape == (ROWS, LENGTH), f"its shape is {tuple(values.shape)}")
    finite(values, "it")


@check(KIND)
@torch.no_grad()
def positions_stand_alone(subject: Subject) -> None:
    """A position's value does not depend on the other positions"""
    space = subject.space
    query = random_query(space)
    other = torch.cat((query[:, :1], query[:, 1:].flip(0) * 1.5), dim=1)
    before = pair(space)[1]
    first, second = (
        subject.built.per_position(space, prediction(space, q), before)[:, 0]
        for q in (query, other)
    )
    agree(first, second, "values beside other positions", 1e-4)


@check(KIND)
@torch.no_grad()
def tied_agrees_with_plain(subject: Subject) -> None:
    """Its short form for a tied head and its form for any head give the same"""
    space = subject.space
    now, before = pair(space)
    short = subject.built.per_position(space, now, before)
    space.tied, tied = False, space.tied
    try:
        plain = subject.built.per_position(space, now, before)
    finally:
        space.tied = tied
    agree(short, plain, "values with a tied head and in general", 1e-4)


@check(KIND)
@torch.no_grad()
def needs_before_as_it_says(subject: Subject) -> None:
    """needs_before says whether it reads the previous prediction; without one it is infinite"""
    statistic, space = subject.built, subject.space
    now, before = pair(space)
    never = torch.zeros(ROWS, dtype=torch.bool)
    if statistic.needs_before:
        value = statistic(space, now, before, never, generated())
        require(value.isinf().all(), "at a row's first step it is not infinite")
        return
    first = statistic(space, now, before, never, generated())
    nothing = take(now, torch.arange(ROWS))
    other = statistic(space, now, nothing, never, generated())
    agree(first, other, "values after other predictions, which it says it does not need", 1e-6)


@check(KIND)
@torch.no_grad()
def reads_generated_positions(subject: Subject) -> None:
    """A row's value is of_row's, and what is predicted elsewhere does not change it"""
    statistic, space = subject.built, subject.space
    always, mask = torch.ones(ROWS, dtype=torch.bool), generated()
    now, before = pair(space)
    value = statistic(space, now, before, always, mask)
    expected = statistic.of_row(statistic.per_position(space, now, before), mask)
    agree(value, expected, "the value and of_row of the positions' values", 1e-5)
    query = torch.where(mask[..., None], now.query, 3.0 * now.query.flip(1))
    other = statistic(space, prediction(space, query), before, always, mask)
    agree(other, value, "values where given positions are predicted otherwise", 1e-5)


@check(KIND)
def name_is_free(subject: Subject) -> None:
    """Its name is not one of the statistics that are built in"""
    name = subject.component.name
    require(name not in BUILT_IN, f"{name!r} is built in")
    require(re.search(r"\s", name) is None, f"{name!r} holds a space")

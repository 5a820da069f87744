"""Checks of exit rules, over made-up courses of their statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.exits import BUILT_IN, ExitCriterion
from dlmkit.testing.compare import Exercise, agree, pure, require
from dlmkit.testing.subject import Subject
from dlmkit.testing.suite import check

KIND = "exit"
ROWS, STEPS = 6, 48

Course = dict[str, Tensor]


def course(subject: Subject) -> Course:
    """Of every statistic it needs, (ROWS, STEPS) values that settle, a row sooner than others.

    They fall to 0, or rise to where the statistic says that it settles, and jump back now and
    then, so that rules with a memory show it.
    """
    step = torch.arange(1, STEPS + 1).float().expand(ROWS, -1)
    pace = 0.15 + 0.1 * torch.arange(ROWS)[:, None]
    falling = 20.0 * torch.exp(-pace * step)
    bumpy = torch.where((step + torch.arange(ROWS)[:, None]) % 5 == 0, falling * 10.0, falling)
    bumpy = torch.where(step > STEPS - 12, 0.0, bumpy)
    built_in = {"step": step, "fraction": step / STEPS, "sigma": 50.0 * torch.exp(-0.2 * step)}
    made = {**{name: _settling(bumpy, subject, name) for name in subject.built.needs}, **built_in}
    return {name: made[name].clone() for name in subject.built.needs}


def _settling(falling: Tensor, subject: Subject, name: str) -> Tensor:
    """``falling`` for a statistic that settles at 0; for another, what rises from 0 to there."""
    entries = subject.registry.components("statistic")
    named = [entry for entry in entries if entry.component.name == name]
    end = subject.make(named[0], subject.parts).settles_at if named else 0.0
    return end * (1.0 - (falling / 20.0).clamp(max=1.0)) if end else falling


def steps(values: Mapping[str, Tensor]) -> Iterator[Course]:
    """The statistics of each step in turn."""
    for step in range(STEPS):
        yield {name: value[:, step] for name, value in values.items()}


def halts(rule: ExitCriterion, values: Mapping[str, Tensor], count: int = ROWS) -> Tensor:
    """bool[B, STEPS]: where the rule holds, followed from the first step."""
    with next(iter(values.values())).device:  # as the loop does
        memory, answers = rule.init(count), []
    for now in steps(values):
        halt, memory = rule(now, memory)
        answers.append(halt)
    return torch.stack(answers, dim=1)


def _exercise(subject: Subject) -> Exercise:
    rule = subject.built

    def call(values: Course) -> Tensor:
        return halts(rule, values, len(next(iter(values.values()))))

    return Exercise(call, (course(subject),), 0.0)


pure(KIND, _exercise)


class _Watched(dict[str, Tensor]):
    """Statistics that note which of them are read."""

    def __init__(self, values: Mapping[str, Tensor], seen: set[str]) -> None:
        super().__init__(values)
        self.seen = seen

    def __getitem__(self, name: str) -> Tensor:
        self.seen.add(name)
        return super().__getitem__(name)


@check(KIND)
def needs_are_exact(subject: Subject) -> None:
    """It reads the statistics it needs, and no others"""
    rule, seen = subject.built, set[str]()
    memory = rule.init(ROWS)
    for now in steps(course(subject)):
        try:
            _, memory = rule(_Watched(now, seen), memory)
        except KeyError as error:
            require(False, f"it reads {error}, which is not among its needs {rule.needs}")
    unread = sorted(set(rule.needs) - seen)
    require(not unread, f"it needs {', '.join(unread)} and never reads them")


@check(KIND)
def needs_exist(subject: Subject) -> None:
    """What it needs is built in, or a statistic that some plugin provides"""
    names = {entry.component.name for entry in subject.registry.components("statistic")}
    unknown = sorted(set(subject.built.needs) - names - set(BUILT_IN))
    require(not unknown, f"nobody provides the statistic {', '.join(unknown)}")


@check(KIND)
def nan_never_halts(subject: Subject) -> None:
    """A statistic that is not a number halts no row"""
    rule = subject.built
    for name in rule.needs:
        values = course(subject)
        values[name] = torch.full_like(values[name], torch.nan)
        others = [other for other in rule.needs if other != name]
        if others:  # a rule of several may hold by the others; alone, none of them is a number
            values = {key: torch.full_like(value, torch.nan) for key, value in values.items()}
        require(not halts(rule, values).any(), f"it halts rows whose {name} is not a number")


@check(KIND)
def halts_in_the_end(subject: Subject) -> None:
    """With its example's options it halts a row whose statistics have settled, not at once"""
    halted = halts(subject.built, course(subject))
    require(halted.any(dim=1).all(), "some row never halts although its statistics have settled")
    require(not halted[:, 0].all(), "it halts every row at its first step")


@check(KIND)
def memory_survives_take(subject: Subject) -> None:
    """Rows that change places, or are left out, keep their memory"""
    rule, values = subject.built, course(subject)
    expected = halts(rule, values)
    memory, index = rule.init(ROWS), torch.tensor([4, 0, 3])
    for step, now in enumerate(steps(values)):
        if step == STEPS // 4:
            memory = rows.take(memory, index)
        if step >= STEPS // 4:
            now = rows.take(now, index)
        halt, memory = rule(now, memory)
        if step >= STEPS // 4:
            agree(halt, expected[index, step], f"halts at step {step} after rows moved")


@check(KIND)
def refilled_rows_start_afresh(subject: Subject) -> None:
    """A row that takes over a slot is judged as if it had begun alone"""
    rule, values = subject.built, course(subject)
    expected = halts(rule, values)
    memory, late = rule.init(ROWS), STEPS // 4
    for step, now in enumerate(steps(values)):
        if step == late:
            memory = rows.put(memory, torch.tensor([2]), rule.init(1))
        if step >= late:
            fresh = {name: value[2:3, step - late] for name, value in values.items()}
            now = {name: rows.put(v, torch.tensor([2]), fresh[name]) for name, v in now.items()}
        halt, memory = rule(now, memory)
        if step >= late:
            agree(halt[2], expected[2, step - late], "halts of a row in another's slot")


@check(KIND)
def gives_its_reason(subject: Subject) -> None:
    """It says in a line why it halted a row"""
    rule, memory = subject.built, subject.built.init(ROWS)
    for now in steps(course(subject)):
        halt, memory = rule(now, memory)
        for row in halt.nonzero()[:1, 0]:
            reason = rule.reason(rows.take(memory, row[None]))
            one_line = isinstance(reason, str) and reason.strip() and "\n" not in reason
            require(one_line, f"its reason is {reason!r}")


@check(KIND)
def answers_in_rows(subject: Subject) -> None:
    """It answers one bool per row"""
    rule = subject.built
    halt, _ = rule(next(steps(course(subject))), rule.init(ROWS))
    require(halt.dtype == torch.bool, f"its answer's dtype is {halt.dtype}")
    require(halt.shape == (ROWS,), f"its answer's shape is {tuple(halt.shape)}")

"""One text of a trace, step by step, as viewers show it."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from dlmkit.core.exits import ExitCriterion
from dlmkit.errors import UsageError
from dlmkit.exits.record_run import TOKENS
from dlmkit.exits.replay import drowned, halting_steps
from dlmkit.exits.trace import Trace

Values = Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Halt:
    """Where a rule would have ended the text: after ``step`` steps, or never (None)."""

    rule: str
    step: int | None

    def __str__(self) -> str:
        where = "never halts it" if self.step is None else f"halts it after step {self.step}"
        return f"{self.rule} {where}"


@dataclass(frozen=True)
class Film:
    """N steps of one text of L tokens, padding left out.

    ``tokens[k][i]`` is what position i reads as after step k + 1, in visible characters.
    ``positions`` are the statistics kept by position, ``statistics`` those of the whole text, and
    ``sigma[k]`` is the noise-to-signal ratio that step k + 1 read. ``by`` names what colours
    show, from 0 to ``most``.
    """

    row: int
    tokens: Sequence[Sequence[str]]
    given: Sequence[bool]
    sigma: Sequence[float | None]
    statistics: Mapping[str, Sequence[float | None]]
    positions: Mapping[str, Values]
    by: str
    most: float
    marks: Sequence[Halt] = ()

    @property
    def steps(self) -> int:
        """N, the steps of the grid."""
        return len(self.tokens)

    def lines(self) -> Iterator[str]:
        """A line per step: its number, the shown statistic's mean, the text; then the marks."""
        width = len(str(self.steps))
        mean = self.statistics.get(self.by, [None] * self.steps)
        for step, tokens in enumerate(self.tokens):
            value = "-" if mean[step] is None else f"{mean[step]:.3f}"
            halts = "".join(f"  [{mark.rule}]" for mark in self.marks if mark.step == step + 1)
            yield f"{step + 1:>{width}}  {self.by} {value}  {''.join(tokens)}{halts}"
        yield from map(str, self.marks)


def film(
    trace: Trace, row: int, by: str = "entropy", rules: Mapping[str, ExitCriterion] | None = None
) -> Film:
    """The text of index ``row``, with the marks of ``rules`` by what the user wrote.

    Raises UsageError if there is no such text, if the trace lacks what is to be shown (and how
    to record it), or if rounding would decide a rule.
    """
    place = _place(trace, row)
    _check(trace, by)
    single = trace.take(torch.tensor([place]))
    there = single.attend[0]
    readings = {int(token): text for token, text in trace.about[TOKENS].items()}
    ids = single.ids[0][:, there].tolist()
    kept = {name: _rounded(value[0][:, there].tolist()) for name, value in single.positions.items()}
    largest = max((v for line in kept[by] for v in line if v is not None), default=0.0)
    return Film(
        row=row,
        tokens=[[visible(readings[token]) for token in line] for line in ids],
        given=single.given[0][there].tolist(),
        sigma=_rounded([single.statistics["sigma"][0].tolist()])[0],
        statistics={k: _rounded([v[0].tolist()])[0] for k, v in single.statistics.items()},
        positions=kept,
        by=by,
        most=largest or 1.0,
        marks=[_mark(single, text, rule) for text, rule in (rules or {}).items()],
    )


def _place(trace: Trace, row: int) -> int:
    rows = trace.row.tolist()
    if row not in rows:
        low, high = min(rows), max(rows)
        raise UsageError(f"--row {row}: this trace holds the texts {low} to {high}")
    return int(rows.index(row))


def _check(trace: Trace, by: str) -> None:
    again = f"record it again by 'dlmkit trace MODEL --out FILE --positions {by}'"
    if not trace.positions:
        raise UsageError(f"this trace holds no statistic by position, which colours need: {again}")
    if by not in trace.positions:
        there = ", ".join(sorted(trace.positions))
        raise UsageError(f"this trace holds by position {there}, but not {by}: {again}")
    unread = set(trace.ids.unique().tolist()) - set(map(int, trace.about.get(TOKENS, ())))
    if unread:
        raise UsageError(f"this trace does not say what its tokens read as: {again}")
    if "sigma" not in trace.statistics:
        raise UsageError(f"this trace does not say at which noise levels it was recorded: {again}")


def _mark(trace: Trace, text: str, rule: ExitCriterion) -> Halt:
    noisy = drowned(trace, rule)
    if noisy:
        raise UsageError(
            f"--exit {text}: its threshold lies below the noise floor of {', '.join(noisy)} in "
            "this trace, where rounding would decide; take a larger one"
        )
    step = int(halting_steps(trace, rule)[0])
    return Halt(text, step if step < trace.steps else None)


def _rounded(values: Sequence[Sequence[float]]) -> list[list[float | None]]:
    """To five digits, which half precision does not exceed; None for what is not finite."""
    return [[float(f"{v:.5g}") if math.isfinite(v) else None for v in line] for line in values]


SYMBOLS = {"\n": "\u23ce", "\t": "\u21e5", "": "\u2205"}
"""A line break, a tabulator, and a token without text."""


def visible(text: str) -> str:
    """``text`` without anything that could move a cursor, turn a direction or be invisible."""
    return SYMBOLS.get(text) or "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in SYMBOLS:
        return SYMBOLS[character]
    code, kind = ord(character), unicodedata.category(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if kind in ("Zs", "Zl", "Zp"):
        return " "
    return "\ufffd" if kind in ("Cc", "Cf", "Cs", "Cn", "Co") else character

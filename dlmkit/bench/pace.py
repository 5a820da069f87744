"""How far a run of the bench is, and how long it will take: a bar where stderr is a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dlmkit import shown

Say = Callable[[str], None]


class Pace:
    """Work done and to do, in evaluations of the network for one text.

    Once the first piece of work is done, ``say`` gets a line on how long all of it will take.
    """

    def __init__(self, say: Say, bar: Progress, clock: Callable[[], float]) -> None:
        self._say, self._bar, self._clock = say, bar, clock
        self._began, self._done, self._total = clock(), 0, 0
        self._task = bar.add_task("", total=None)

    def expect(self, total: int) -> None:
        """There is so much work in all, as far as is known by now."""
        self._total = total
        self._bar.update(self._task, total=total)

    def done(self, work: int) -> None:
        """So much of it has been done since the last call."""
        first, self._done = not self._done, self._done + work
        self._bar.update(self._task, completed=self._done)
        if first and self._total:
            left = (self._clock() - self._began) * (self._total / self._done - 1.0)
            self._say(f"about {spelt(left)} left at this pace")


@contextmanager
def paced(say: Say, clock: Callable[[], float] = time.monotonic) -> Iterator[Pace]:
    """A pace with its bar on stderr, while that is a terminal."""
    columns = (TextColumn("bench"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
    with shown.bar(*columns, TimeRemainingColumn()) as bar:
        yield Pace(say, bar, clock)


def spelt(seconds: float) -> str:
    """``seconds`` in the unit that suits them."""
    for limit, unit, size in ((100, "seconds", 1), (6000, "minutes", 60)):
        if seconds < limit:
            return f"{max(1, round(seconds / size))} {unit}"
    return f"{seconds / 3600:.1f} hours"

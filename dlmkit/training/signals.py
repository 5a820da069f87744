"""Asking a run to stop: a flag that every phase looks at. Imports no torch."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

from dlmkit.errors import Preempted

_ECHO = 5.0
"""Seconds within which torchrun passes on a signal that its workers got as well: a scheduler or a
terminal signals all processes of a job. Our choice."""


class Stopped(Exception):
    """A phase gave up because a stop was asked for."""


class Held:
    """While entered, Ctrl-C waits: KeyboardInterrupt is raised on the way out.

    Calling it says whether that is due. A second Ctrl-C raises at once, and sets ``broken``: what
    was being done is half done. In threads other than the main one nothing is held, since no signal
    arrives there.
    """

    def __init__(self) -> None:
        self.broken = False
        self._asked = False
        self._before: object = None

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            if callable(self._before):
                signal.signal(signal.SIGINT, self._handle)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if callable(self._before):
            signal.signal(signal.SIGINT, self._before)
        if self._asked and kind is None:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            self.broken = True
            raise KeyboardInterrupt
        self._asked = True


class StopSignals:
    """While entered, SIGTERM and SIGINT ask for a stop; the second one ends the process at once.

    Under torchrun, the second one counts only after some seconds: see :data:`_ECHO`.

    Before :meth:`defer` there is nothing to save, so SIGTERM raises Preempted where the program
    stands and SIGINT KeyboardInterrupt. After it they only set the flag that calling this object
    reads. ``name`` is the signal that came first.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._deferred = False
        self._first = -_ECHO
        self._echo = _ECHO if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
        self._before: dict[int, object] = {}

    def __call__(self) -> bool:
        return self.name is not None

    def defer(self) -> None:
        """From now on there is something to save."""
        self._deferred = True

    def ignore(self) -> None:
        """From now on signals do nothing, until the process ends: its exit code is decided.

        For one process of many. As soon as the first has ended, torchrun sends SIGTERM to the
        others, which are about to end as well.
        """
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        self._before.clear()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None:
            if time.monotonic() - self._first < self._echo:
                return
            os.write(2, b"\nstopped at once; the last complete checkpoint stays\n")
            os._exit(128 + number)
        self.name, self._first = signal.Signals(number).name, time.monotonic()
        if not self._deferred:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise Preempted(f"stopped by {self.name} before the first step; nothing was lost")
        os.write(2, f"\n{self.name}: saving\n".encode())

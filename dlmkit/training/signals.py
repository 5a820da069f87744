"""Asking a run to stop: a flag that every phase looks at. Imports no torch."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

from dlmkit.errors import Preempted


class Stopped(Exception):
    """A phase gave up because a stop was asked for."""


class StopSignals:
    """While entered, SIGTERM and SIGINT ask for a stop; the second one ends the process at once.

    Before :meth:`defer` there is nothing to save, so SIGTERM raises Preempted where the program
    stands and SIGINT KeyboardInterrupt. After it they only set the flag that calling this object
    reads. ``name`` is the signal that came first.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._deferred = False
        self._before: dict[int, object] = {}

    def __call__(self) -> bool:
        return self.name is not None

    def defer(self) -> None:
        """From now on there is something to save."""
        self._deferred = True

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
            os.write(2, b"\nstopped at once; the last complete checkpoint stays\n")
            os._exit(128 + number)
        self.name = signal.Signals(number).name
        if not self._deferred:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise Preempted(f"stopped by {self.name} before the first step; nothing was lost")
        os.write(2, f"\n{self.name}: saving\n".encode())

"""Rows read ahead of the loop, in a thread, so that waiting for data can be interrupted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from dlmkit import rows as row_first
from dlmkit.core.data import Stream
from dlmkit.core.objective import Batch
from dlmkit.types import Index

_POLL = 0.1  # seconds between looks at the stop flag
_GRACE = 2.0  # seconds for a read to end: a thread in torch at exit aborts the process
_AHEAD = 8  # steps, so that text which is tokenised in bursts is smoothed


@dataclass(frozen=True)
class FeedRows:
    """One step's rows of this process, and the stream's state after they were read."""

    step: int
    batch: Batch
    state: Mapping[str, Any]


class Feed:
    """Reads the rows ``slots`` of one step after another, a few steps ahead."""

    def __init__(self, stream: Stream, slots: Index, steps: range, pin: bool) -> None:
        self.stream, self.slots, self.steps, self.pin = stream, slots, steps, pin
        self._ready: queue.Queue[FeedRows | BaseException] = queue.Queue(maxsize=_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="dlmkit-feed", daemon=True)

    def next(self, stop: Callable[[], bool]) -> FeedRows | None:
        """The next step's rows, or None if ``stop()`` holds first. Raises what reading raised."""
        while not stop():
            try:
                item = self._ready.get(timeout=_POLL)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            return item
        return None

    def attempt(self, stop: Callable[[], bool]) -> tuple[FeedRows | None, Exception | None]:
        """:meth:`next`, or what it raised."""
        try:
            return self.next(stop), None
        except Exception as error:
            return None, error

    def _work(self) -> None:
        try:
            for step in self.steps:
                if not self._put(self._read(step)):
                    return
        except BaseException as error:
            self._put(error)

    def _read(self, step: int) -> FeedRows:
        batch = self.stream.read(step, self.slots)
        if self.pin:
            batch = row_first.mapped(batch, lambda tensor: tensor.pin_memory())
        return FeedRows(step, batch, self.stream.state())

    def _put(self, item: FeedRows | BaseException) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return True
        return False


@contextmanager
def feed(stream: Stream, slots: Index, steps: range, device: torch.device) -> Iterator[Feed]:
    """A running feed that is told to end when the block ends."""
    running = Feed(stream, slots, steps, pin=device.type == "cuda")
    running._thread.start()
    try:
        yield running
    finally:
        running._closed.set()
        running._thread.join(_GRACE)

"""A checkpoint that several processes write, each its part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from dlmkit.training import shards
from dlmkit.training.checkpoint import Draft, Entries, saving
from dlmkit.training.parallel import Sharded
from dlmkit.training.state import SHARDS

T = TypeVar("T")


@dataclass(frozen=True)
class Saving:
    """What becomes the checkpoint of ``step`` once every process has ``written`` its part.

    All of it is called by all processes, in the same order. What one of them fails at all raise,
    as CheckpointError where the disk refuses; then nothing is left behind.
    """

    draft: Draft
    step: int
    world: Sharded
    written: Future[Any]

    @staticmethod
    def begin(
        final: Path,
        step: int,
        tensors: Mapping[str, Tensor],
        write: Callable[[Path], None],
        world: Sharded,
        later: bool,
    ) -> Saving:
        """``write(folder)`` writes all but the ``tensors``, in the first process; ``later``: of
        those a copy is written while other work goes on."""
        draft: Draft = world.lead(lambda: Draft.of(final))
        begun = Saving(draft, step, world, Future())
        with begun._or_nothing():
            world.lead(lambda: begun._do(lambda: draft.begin(write)))
            written = shards.write(draft.work / SHARDS, tensors, world.writers, later)
        return replace(begun, written=written)

    def done(self) -> bool:
        """Whether every process has written its part."""
        return not self.world.any(not self.written.done())

    def publish(self) -> Path:
        """Wait for all parts, and give the checkpoint its name. Every process reads what it wrote
        once more, for its digest."""
        with self._or_nothing():
            parts = self.world.share(self.world.together(lambda: self._do(self._entries)))
            entries = {name: entry for part in parts for name, entry in part.items()}
            self.world.lead(lambda: self._do(lambda: self.draft.publish(self.step, entries)))
        return self.draft.final

    def _entries(self) -> Entries:
        shards.finish(self.written)
        rank, here = self.world.rank, f"{SHARDS}/"
        return self.draft.entries(
            lambda name: (
                shards.mine(name.removeprefix(here), rank)
                if name.startswith(here)
                else self.world.first
            )
        )

    def _do(self, call: Callable[[], T]) -> T:
        with saving(self.draft.final):
            return call()

    def _or_nothing(self) -> AbstractContextManager[None]:
        return self.draft.or_nothing() if self.world.first else nullcontext()

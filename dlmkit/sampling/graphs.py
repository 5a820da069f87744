"""CUDA graphs: the kernels of a sampling turn, recorded once per batch shape and replayed.

Launching a kernel costs the host more than a small kernel takes. A turn reads no value and has no
shape that depends on one (see `turn`), so all of it is one graph: network, sampler, noise,
statistics and rules. What the rules say is read after it; refills and settled positions come
between two replays, as new values that are copied into the graph's memory. No GPU has run this: a
tape of operations has, replayed over the same memory in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dlmkit import rows
from dlmkit.core.denoise import CountingDenoise
from dlmkit.errors import RecipeError, describe
from dlmkit.sampling.slots import State
from dlmkit.sampling.turn import SamplingTurn, Seen

WARM_UP = 3
"""Calls before a recording, in which libraries choose their kernels and allocate workspaces."""


def record(call: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    """(what ``call`` returns, a function that does its kernels again in the same memory)."""
    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    with torch.cuda.graph(graph):
        result = call()
    return result, graph.replay


class RecordedTurn:
    """``turn``, replayed. ``counters`` count the evaluations of a replay as of any other call.

    The first turn of a run, and those that every row ends with, are not recorded: they have
    kernels of their own and come once. Rows that have ended always step in vain.
    """

    def __init__(self, turn: SamplingTurn, counters: Sequence[CountingDenoise]) -> None:
        self.turn, self.counters = turn, counters
        self._recordings: dict[int, _Recording] = {}

    def __call__(self, state: State, last: bool, all_live: bool) -> tuple[State, Seen]:
        """As of the turn. The state is the recording's own memory, good until the next replay."""
        if last or state.before is None:
            return self.turn(state, last, all_live)
        width = len(state.position)
        if width not in self._recordings:
            self._recordings[width] = _Recording(self.turn, state, self.counters)
        return self._recordings[width].replay(state)


class _Recording:
    """A turn at one batch shape, with the memory that it reads from and writes to."""

    def __init__(
        self, turn: SamplingTurn, state: State, counters: Sequence[CountingDenoise]
    ) -> None:
        self.turn, self.counters = turn, counters
        self.state = rows.clone(state)
        before = [(counter.calls, counter.rows) for counter in counters]
        try:
            self.seen, self._again = record(self._call)
        except RuntimeError as error:
            raise RecipeError(
                "sample.cuda_graphs: a step of this recipe cannot be recorded, since a part of it "
                f"makes the host wait or changes shapes: leave the key out ({describe(error)})"
            ) from error
        for counter, (calls, evaluated) in zip(counters, before, strict=True):
            counter.calls, counter.rows = calls, evaluated

    @torch.no_grad()
    def _call(self) -> Seen:
        started = [(counter.calls, counter.rows) for counter in self.counters]
        # a new value of the same tensors: keys that noise has folded belong to the recording
        stepped, seen = self.turn(rows.alike(self.state), last=False, all_live=False)
        # copies, before the memory that some of it shares with the state is written over
        stepped, seen = rows.clone((stepped, seen))
        rows.fill(self.state, stepped)
        self.cost = [
            (counter.calls - calls, counter.rows - evaluated)
            for counter, (calls, evaluated) in zip(self.counters, started, strict=True)
        ]
        return seen

    def replay(self, state: State) -> tuple[State, Seen]:
        """The state after a turn from ``state``, and what it showed."""
        rows.fill(self.state, state)
        self._again()
        for counter, (calls, evaluated) in zip(self.counters, self.cost, strict=True):
            counter.calls += calls
            counter.rows += evaluated
        return rows.alike(self.state), rows.clone(self.seen)  # the next replay writes over it

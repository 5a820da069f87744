"""One turn of the sampling loop as the device does it: no value is read, no shape depends on one.

So a turn is a fixed list of kernels for its batch shape, and can be recorded (see `graphs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dlmkit.core.denoise import Denoise, Prediction
from dlmkit.sampling.levels import Ladder
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.settle import settled
from dlmkit.sampling.slots import State, freeze
from dlmkit.sampling.sound import is_sound
from dlmkit.types import Mask, PerRow, Rows


class RowVerdict(NamedTuple):
    """What the rules say of a row: whether the exit rule holds, whether some of its positions
    settle now, and whether none is open after that, for the rule or for the sampler."""

    halts: bool
    settles: bool
    closed: bool


@dataclass(frozen=True)
class Seen:
    """What a turn showed, row-first: the prediction at ``origin``, where the rows came from, and
    ``x``, where they went.

    ``settles`` marks the positions that settle now, ``verdicts`` (bool[B, 3]) holds the rows'; both
    are None without a rule.
    """

    origin: Tensor
    x: Tensor
    prediction: Prediction
    statistics: dict[str, PerRow]
    settles: Mask | None
    verdicts: Tensor | None

    def read(self) -> list[RowVerdict]:
        """The verdict on each row. Waits for the device, where there is a rule."""
        if self.verdicts is None:
            return [RowVerdict(False, False, False)] * len(self.origin)
        return [RowVerdict(*row) for row in self.verdicts.tolist()]


@dataclass(frozen=True)
class SamplingTurn:
    """What stays the same from turn to turn."""

    parts: SamplingParts
    ladder: Ladder
    denoise: Denoise

    @torch.no_grad()
    def __call__(self, state: State, last: bool, all_live: bool) -> tuple[State, Seen]:
        """One sampler step of every row, statistics and rules.

        ``last`` says that every row's next level is clean; unless ``all_live``, rows that have
        ended step in vain and stay as they are.
        """
        parts = self.parts
        step, built_in = self.ladder.step(
            state.position, state.x, state.generated, state.noise, state.previous, last
        )
        known = replace(state.conditioning, step=(step.here, step.next))
        x, prediction, sampler = parts.sampler.step(
            lambda x, level, previous: self.denoise(x, level, previous, known),
            state.x,
            step,
            state.sampler,
        )
        if any(statistic.needs_top for statistic in parts.statistics.values()):
            prediction = replace(prediction, top=parts.space.top(prediction.query))
        sound = state.sound
        if not x.is_floating_point():  # a noisy state that has met a NaN keeps it, tokens do not
            sound = sound & is_sound(prediction.lse, state.asked.attend)
        statistics = {**built_in, **self._statistics(state, prediction)}
        stepped = replace(
            state,
            position=state.position + 1,
            x=x,
            sound=sound,
            previous=prediction.feedback,
            sampler=sampler,
            before=prediction,
        )
        stepped, settles, verdicts = self._judge(state, stepped, prediction, statistics)
        if not all_live:
            stepped = freeze(state.position < self.ladder.steps, state, stepped)
        return stepped, Seen(state.x, stepped.x, prediction, statistics, settles, verdicts)

    def _statistics(self, state: State, prediction: Prediction) -> Mapping[str, PerRow]:
        parts = self.parts
        before = prediction if state.before is None else state.before
        if not parts.statistics:
            return {}
        has_before = state.position > 0
        return {
            name: statistic(parts.space, prediction, before, has_before, state.generated)
            for name, statistic in parts.statistics.items()
        }

    def _stopped(self, x: Tensor, state: State) -> Rows | None:
        """Rows of which a token that ends a text is settled, and all before it; None: none can be.

        It counts behind the last given position alone.
        """
        settled = self.parts.space.settled(x) if self.parts.stop else None
        if settled is None:
            return None
        asked, token = state.asked, torch.zeros_like(state.generated)
        for stop in self.parts.stop:
            token = token | (x == stop)
        behind = asked.given.flip(1).cumsum(dim=1).flip(1) == 0
        closed = (state.generated & ~settled).cumsum(dim=1) == 0
        return (token & behind & closed & state.generated).any(dim=1)

    def _judge(
        self,
        state: State,
        stepped: State,
        prediction: Prediction,
        statistics: Mapping[str, PerRow],
    ) -> tuple[State, Mask | None, Tensor | None]:
        """(``stepped`` with the rules' new memories, positions that settle now, verdicts)."""
        parts = self.parts
        ended = parts.sampler.ended(stepped.x, state.generated, stepped.sampler)
        stopped = self._stopped(stepped.x, state)
        if ended is not None and stopped is not None:
            ended = ended | stopped
        elif ended is None:
            ended = stopped
        if parts.exit is None and parts.freeze is None and ended is None:
            return stepped, None, None
        halts = some = closed = torch.zeros_like(state.generated[:, 0])
        settles = None
        if parts.exit is not None:
            halts, memory = parts.exit(statistics, state.memory)
            stepped = replace(stepped, memory=memory)
        if parts.freeze is not None:
            settles, settling = settled(parts.freeze, parts, state, prediction, statistics)
            stepped = replace(stepped, settling=settling)
            some, closed = settles.any(dim=1), ~(state.generated & ~settles).any(dim=1)
        if ended is not None:
            closed = closed | ended
        return stepped, settles, torch.stack((halts, some, closed), dim=1)

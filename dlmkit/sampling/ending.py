"""Which rows end, and as what: by the steps that the host knows before, and by the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dlmkit import rows
from dlmkit.core.denoise import CountingDenoise, Denoise, spent
from dlmkit.core.exits import BUILT_IN, ExitCriterion
from dlmkit.errors import NonFiniteError
from dlmkit.sampling.levels import Ladder
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.settle import REASON
from dlmkit.sampling.slots import LastStep, RowSlots, Seat, places
from dlmkit.sampling.snapshot import Sample
from dlmkit.sampling.sound import is_sound
from dlmkit.sampling.turn import RowVerdict, Seen

STOPPED = "end of text"
"""Why a row ended of which a token that ends a text is settled, and all before it."""


def last_step(rule: ExitCriterion | None, ladder: Ladder) -> tuple[LastStep, ExitCriterion | None]:
    """(the step that every row ends at, the rule that may end rows before, or None).

    A rule that reads a row's place on the grid alone ends all rows at one step, which is found
    here: then no step has to wait for what the device says.
    """
    grid = LastStep(ladder.steps)
    if rule is None or not set(rule.needs) <= set(BUILT_IN):
        return grid, rule
    with torch.device("cpu"):
        memory = rule.init(1)
        for done, statistics in enumerate(ladder.statistics(), start=1):
            halts, memory = rule(statistics, memory)
            if done < ladder.steps and halts:
                return LastStep(done, rule.reason(memory)), None
    return grid, None


@dataclass(frozen=True)
class Evaluations:
    """Counts what a run evaluates: ``network``, and ``denoise`` around guidance.

    ``costs`` are the predictions that a row's first k + 1 steps take.
    """

    network: CountingDenoise
    denoise: CountingDenoise
    costs: Sequence[int]

    @staticmethod
    def of(parts: SamplingParts, steps: int) -> Evaluations:
        """Of a run of ``parts`` on a grid of ``steps`` points."""
        network = CountingDenoise(parts.denoise)
        # a recorded turn takes the same steps whatever the tokens
        recorded = parts.inference.cuda_graphs
        guided: Denoise = network if recorded else parts.denoise.reusing(network)
        for guidance in parts.guidance:
            guided = guidance.wrap(guided)
        last = torch.arange(1, steps + 1) == steps
        costs = parts.sampler.evaluations(last).cumsum(0).tolist()
        return Evaluations(network, CountingDenoise(guided), costs)

    def after(self, steps: int) -> int:
        """Evaluations of the network that a row's first ``steps`` steps have taken."""
        branches = self.network.rows // self.denoise.rows  # guidance asks for several
        return branches * self.costs[steps - 1]


@dataclass(frozen=True)
class Ending:
    """Tells which rows end after a turn, and reads their texts."""

    parts: SamplingParts
    seed: int
    steps: int
    evaluations: Evaluations

    def ended(self, slots: RowSlots, verdicts: Sequence[RowVerdict]) -> list[int]:
        """The slots whose text ends with the turn that has just been taken."""
        return [
            i
            for i, (seat, verdict) in enumerate(zip(slots.seats, verdicts, strict=True))
            if seat.live and (seat.done == seat.last.step or verdict.halts or verdict.closed)
        ]

    def samples(
        self, slots: RowSlots, ended: Sequence[int], seen: Seen, verdicts: Sequence[RowVerdict]
    ) -> tuple[Sample, ...]:
        """The texts of the rows ``ended``: given positions as given, padding left out.

        Raises NonFiniteError for one of which a prediction was not finite, read with the texts.
        """
        if not ended:
            return ()
        state, index = slots.state, places(ended, slots)
        asked, x, sound, query, memory = rows.take(
            (state.asked, state.x, state.sound, seen.prediction.query, state.memory), index
        )
        ids = torch.where(asked.given, asked.ids, self.parts.space.decode(x, query))
        sound = sound & is_sound(x, asked.attend) & is_sound(query, asked.attend)
        evaluations = spent(state.previous)
        if evaluations is not None:
            evaluations = evaluations[index]
        ids, memory, sound, evaluations = rows.on_host((ids, memory, sound, evaluations))
        samples = []
        for k, i in enumerate(ended):
            seat, kept = slots.seats[i], rows.take(memory, torch.tensor([k]))
            if not sound[k]:
                raise NonFiniteError(_unsound(seat, self.seed))
            text = seat.request.ended(ids[k].tolist(), self.parts.stop)
            sample = Sample(
                row=seat.request.row,
                ids=text,
                steps=seat.done,
                evaluations=self.evaluations.after(seat.done)
                if evaluations is None
                else int(evaluations[k]),
                halted=self._reason(seat, verdicts[i], text, kept),
                start=seat.request.start,
            )
            samples.append(sample)
        return tuple(samples)

    def _reason(
        self, seat: Seat, verdict: RowVerdict, text: Sequence[int], memory: Any
    ) -> str | None:
        """Why a row ended: its rule, its end of text or every position being settled, or (None)
        the grid's end."""
        if seat.done == self.steps:
            return None
        if verdict.halts and self.parts.exit is not None:
            return self.parts.exit.reason(memory)
        if seat.done == seat.last.step:
            return seat.last.reason
        return STOPPED if text[-1] in self.parts.stop else REASON


def _unsound(seat: Seat, seed: int) -> str:
    return (
        f"text {seat.request.row} of seed {seed}: after {seat.done} steps what the model predicts "
        "is not finite (NaN or infinity), and no text can come of it; try sample.precision: fp32, "
        "another sampler or grid, or an earlier checkpoint"
    )

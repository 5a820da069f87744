"""The rows of new texts: drawn from the prior, at the first point of the grid."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from dlmkit import rows
from dlmkit.core.cache import Window
from dlmkit.core.denoise import Denoise
from dlmkit.core.exits import ExitCriterion
from dlmkit.errors import UsageError
from dlmkit.noise import Noise
from dlmkit.sampling.levels import Ladder
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request, template
from dlmkit.sampling.slots import LastStep, RowSlots, Seat, State

INITIAL, STEP = 0x1417, 0x57E9
"""Domains that keep sampling's noise apart from training's and the first x from the steps."""


@dataclass(frozen=True)
class Opening:
    """What new rows of a run are made from. ``last`` is the step that they end at, if known."""

    parts: SamplingParts
    seed: int
    length: int
    ladder: Ladder
    denoise: Denoise
    last: LastStep

    @torch.no_grad()
    def slots(self, requests: list[Request], count: int) -> RowSlots:
        """``count`` fresh slots: those of ``requests``, and idle ones after them."""
        parts, steps = self.parts, self.ladder.steps
        idle = count - len(requests)
        if parts.sampler.window is not None:
            _check_windows(requests, parts.sampler.window, steps)
        if not parts.sampler.gaps:
            _check_gaps(requests)
        asked = template([*requests, *[requests[-1]] * idle], self.length, parts.device)
        start = torch.zeros_like(asked.row)
        noise = Noise.steps(self.seed, asked.row, steps + 1)
        clean = parts.clean(asked.ids)
        first = noise.at(start).fork(INITIAL)
        x = parts.space.corruption.prior(clean, self.ladder.level(start), first)
        for guidance in parts.guidance:
            x = guidance.start(x)
        start[len(requests) :] = steps
        state = State(
            position=start,
            asked=asked,
            generated=asked.attend & ~asked.given,
            conditioning=parts.known(clean, asked),
            noise=noise.fork(STEP),
            x=x,
            sound=torch.ones_like(start, dtype=torch.bool),
            previous=self.denoise.start(x),
            sampler=parts.sampler.init(x),
            memory=self._memory(parts.exit, count),
            settling=rows.part(self._memory(parts.freeze, count * self.length), self.length),
        )
        live = [Seat(request, self.last.of(request)) for request in requests]
        none = Seat(requests[-1], self.last, live=False)
        return RowSlots((*live, *[none] * idle), state)

    def _memory(self, rule: ExitCriterion | None, count: int) -> Any:
        """The memory that ``rule`` has of ``count`` rows or positions that have taken no step."""
        with self.parts.device:
            return () if rule is None else rule.init(count)


def _check_windows(requests: list[Request], window: Window, steps: int) -> None:
    """Raise UsageError for a text of more windows to write than the grid has steps."""
    for request in requests:
        generated = torch.tensor([[token is None for token in request.tokens]])
        wanted = set(window.numbers(generated)[generated].tolist())
        if len(wanted) > steps:
            raise UsageError(
                f"text {request.row} is written in {len(wanted)} windows of {window.size} "
                f"positions, and the grid has {steps} steps: ask for {len(wanted)} or more"
            )


def _check_gaps(requests: list[Request]) -> None:
    """Raise UsageError for a text of which something is given behind what is to be written."""
    for request in requests:
        if any(here is None and there is not None for here, there in pairwise(request.tokens)):
            raise UsageError(
                f"text {request.row} has a gap, and this sampler writes on from what stands before "
                "alone: give a prompt, or take another sampler"
            )

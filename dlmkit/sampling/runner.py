"""The sampling loop: :func:`stream` is the only one, :func:`generate` drains it.

Every row has its own place on the grid, so a row that ends gives its slot to the next text at
that text's own first step, at constant batch shape. What a row becomes depends on the seed and
its index alone; slots, refill and compaction are speed (and floating-point rounding).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from dlmkit import rows
from dlmkit.core.denoise import CountingDenoise, Denoise, spent
from dlmkit.core.exits import ExitCriterion
from dlmkit.errors import NonFiniteError
from dlmkit.noise import Noise
from dlmkit.sampling.graphs import Recorded
from dlmkit.sampling.levels import Ladder, levels
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request, template
from dlmkit.sampling.settle import REASON, settle
from dlmkit.sampling.slots import Seat, Slots, State, Width, compact, end, exact, places, refill
from dlmkit.sampling.snapshot import Sample, Snapshot
from dlmkit.sampling.sound import is_sound
from dlmkit.sampling.turn import Seen, Turn, Verdict

INITIAL, STEP = 0x1417, 0x57E9
"""Domains that keep sampling's noise apart from training's and the first x from the steps."""


def stream(
    parts: SamplingParts,
    requests: Iterable[Request],
    *,
    seed: int,
    steps: int,
    batch_size: int,
    length: int,
    width: Width = exact,
) -> Iterator[Snapshot]:
    """Sample ``requests`` on a grid of ``steps`` points in at most ``batch_size`` slots.

    ``requests`` is read as slots come free and may be endless; rows are padded to ``length``.
    ``width`` says how slots shrink once it is empty. Raises UsageError for a request that does
    not fit and RecipeError for a grid that is not strictly decreasing.
    """
    queue = iter(requests)
    run = _Run.begin(parts, seed, steps, length)
    first = list(islice(queue, batch_size))
    if not first:
        return
    slots = run.open(first, width(len(first), batch_size))
    while slots.live:
        slots, step = run.turn(slots)
        yield step
        slots = run.refill(slots, queue, width)


def generate(
    parts: SamplingParts,
    requests: Iterable[Request],
    *,
    seed: int,
    steps: int,
    batch_size: int,
    length: int,
    width: Width = exact,
) -> list[Sample]:
    """The samples of :func:`stream`, in order of their index."""
    turns = stream(
        parts, requests, seed=seed, steps=steps, batch_size=batch_size, length=length, width=width
    )
    return sorted((sample for step in turns for sample in step.samples), key=lambda s: s.row)


@dataclass(frozen=True)
class _Run:
    """What stays the same from turn to turn. Each method maps slots to slots.

    ``costs`` are the evaluations of a row's first k + 1 steps, guidance left out.
    """

    parts: SamplingParts
    seed: int
    length: int
    ladder: Ladder
    costs: Sequence[int]
    network: CountingDenoise
    denoise: CountingDenoise
    advance: Turn | Recorded

    @staticmethod
    def begin(parts: SamplingParts, seed: int, steps: int, length: int) -> _Run:
        parts = parts.prepared()
        network = CountingDenoise(parts.denoise)
        graphs = parts.inference.cuda_graphs
        # a recorded turn takes the same steps whatever the tokens
        guided: Denoise = network if graphs else parts.denoise.reusing(network)
        for guidance in parts.guidance:
            guided = guidance.wrap(guided)
        ladder = Ladder.of(levels(parts, steps), parts.device, parts.dtype)
        costs = parts.sampler.evaluations(torch.arange(1, steps + 1) == steps).cumsum(0).tolist()
        denoise = CountingDenoise(guided)
        turn = Turn(parts, ladder, denoise)
        advance = Recorded(turn, (network, denoise)) if graphs else turn
        return _Run(parts, seed, length, ladder, costs, network, denoise, advance)

    @torch.no_grad()
    def open(self, requests: list[Request], count: int) -> Slots:
        """``count`` fresh slots: ``requests`` drawn from the prior, and idle ones after them."""
        parts, steps = self.parts, self.ladder.steps
        idle = count - len(requests)
        asked = template([*requests, *[requests[-1]] * idle], self.length, parts.device)
        start = torch.zeros_like(asked.row)
        noise = Noise.steps(self.seed, asked.row, steps + 1)
        clean = parts.clean(asked.ids)
        x = parts.space.corruption.prior(
            clean, self.ladder.level(start), noise.at(start).fork(INITIAL)
        )
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
            memory=self.memory(parts.exit, count),
            settling=rows.part(self.memory(parts.freeze, count * self.length), self.length),
        )
        live = [Seat(request) for request in requests]
        return Slots((*live, *[Seat(requests[-1], live=False)] * idle), state)

    def memory(self, rule: ExitCriterion | None, count: int) -> Any:
        """The memory that ``rule`` has of ``count`` rows or positions that have taken no step."""
        with self.parts.device:
            return () if rule is None else rule.init(count)

    @torch.no_grad()
    def turn(self, slots: Slots) -> tuple[Slots, Snapshot]:
        """One sampler step of the live rows; a text ends with the grid or where a rule says so.

        The device is waited for where a rule may end a text, and where texts end: once each.
        """
        steps = self.ladder.steps
        last = all(seat.done + 1 >= steps for seat in slots.seats)
        state, seen = self.advance(slots.state, last, all_live=not slots.free)
        verdicts = seen.read()
        if seen.settles is not None and any(verdict.settles for verdict in verdicts):
            state = settle(self.parts, state, seen.settles, seen.prediction.query)
        stepped = Slots(tuple(seat.stepped() for seat in slots.seats), state)
        ended = [
            i
            for i, (seat, verdict) in enumerate(zip(stepped.seats, verdicts, strict=True))
            if seat.live and (seat.done == steps or verdict.halts or verdict.closed)
        ]
        step = Snapshot(
            row=torch.tensor([seat.request.row for seat in stepped.seats]),
            live=torch.tensor([seat.live for seat in stepped.seats]),
            done=torch.tensor([seat.done for seat in stepped.seats]),
            x=seen.x,
            origin=seen.origin,
            prediction=seen.prediction,
            statistics=seen.statistics,
            samples=self._samples(stepped, ended, seen, verdicts),
            evaluations=self.network.rows,
        )
        return end(stepped, ended, steps), step

    def refill(self, slots: Slots, queue: Iterator[Request], width: Width) -> Slots:
        """Give free slots to the next requests; shrink when there are none left."""
        free = slots.free
        requests = list(islice(queue, len(free)))
        if requests:
            slots = refill(slots, free[: len(requests)], self.open(requests, len(requests)))
        if len(requests) < len(free):
            slots = compact(slots, width(slots.live, len(slots.seats)))
        return slots

    def _samples(
        self, slots: Slots, ended: Sequence[int], seen: Seen, verdicts: Sequence[Verdict]
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
        for k, i in enumerate(ended):
            if not sound[k]:
                raise NonFiniteError(_unsound(slots.seats[i], self.seed))
        return tuple(
            Sample(
                row=seat.request.row,
                ids=seat.request.ended(ids[k].tolist(), self.parts.stop),
                steps=seat.done,
                evaluations=self._branches * self.costs[seat.done - 1]
                if evaluations is None
                else int(evaluations[k]),
                halted=self._reason(seat.done, halts, rows.take(memory, torch.tensor([k]))),
                start=seat.request.start,
            )
            for k, (seat, halts) in enumerate((slots.seats[i], verdicts[i].halts) for i in ended)
        )

    @property
    def _branches(self) -> int:
        """How often guidance evaluates the network for one prediction."""
        return self.network.rows // self.denoise.rows

    def _reason(self, done: int, halted: bool, memory: Any) -> str | None:
        """Why a row ended: its rule, every position being settled, or (None) the grid's end."""
        if done == self.ladder.steps:
            return None
        if halted and self.parts.exit is not None:
            return self.parts.exit.reason(memory)
        return REASON


def _unsound(seat: Seat, seed: int) -> str:
    return (
        f"text {seat.request.row} of seed {seed}: after {seat.done} steps what the model predicts "
        "is not finite (NaN or infinity), and no text can come of it; try sample.precision: fp32, "
        "another sampler or grid, or an earlier checkpoint"
    )

"""The sampling loop: :func:`stream` is the only one, :func:`generate` drains it.

Every row has its own place on the grid, so a row that ends gives its slot to the next text at
that text's own first step, at constant batch shape. What a row becomes depends on the seed and
its index alone; slots, refill and compaction are speed (and floating-point rounding).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.denoise import CountingDenoise, Denoise, Prediction
from dlmkit.core.exits import ExitCriterion
from dlmkit.core.network import Conditioning
from dlmkit.core.schedule import Level
from dlmkit.noise import Noise
from dlmkit.sampling.levels import levels
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request, Template, template
from dlmkit.sampling.settle import REASON, settled
from dlmkit.sampling.slots import Slots, Width, compact, exact, freeze, refill
from dlmkit.sampling.step import Sample, Step
from dlmkit.types import Ids, Index, PerRow, Rows

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
) -> Iterator[Step]:
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
    while bool(slots.live.any()):
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
    """What stays the same from turn to turn. Each method maps slots to slots."""

    parts: SamplingParts
    seed: int
    length: int
    table: Level
    network: CountingDenoise
    denoise: CountingDenoise

    @staticmethod
    def begin(parts: SamplingParts, seed: int, steps: int, length: int) -> _Run:
        parts = parts.prepared()
        network = CountingDenoise(parts.denoise)
        guided: Denoise = network
        for guidance in parts.guidance:
            guided = guidance.wrap(guided)
        table = Level(*(values.to(parts.device) for values in levels(parts, steps)))
        parts = replace(parts, sampler=parts.sampler.for_grid(steps))
        return _Run(parts, seed, length, table, network, CountingDenoise(guided))

    @property
    def steps(self) -> int:
        return len(self.table.alpha) - 1

    def level(self, position: Index, like: Tensor) -> Level:
        dtype = like.dtype if like.is_floating_point() else torch.float32
        return Level(self.table.alpha[position].to(dtype), self.table.sigma[position].to(dtype))

    @torch.no_grad()
    def open(self, requests: list[Request], count: int) -> Slots:
        """``count`` fresh slots: ``requests`` drawn from the prior, and idle ones after them."""
        parts, space = self.parts, self.parts.space
        idle = [requests[-1]] * (count - len(requests))
        asked = template([*requests, *idle], self.length, parts.device)
        clean = self._clean(asked.ids)
        start = torch.zeros_like(asked.row)
        noise = Noise.keyed(self.seed, asked.row, 0).fork(INITIAL)
        x = space.corruption.prior(clean, self.level(start, clean), noise)
        for guidance in parts.guidance:
            x = guidance.start(x)
        return Slots(
            template=asked,
            live=torch.arange(count, device=parts.device) < len(requests),
            position=start,
            conditioning=self._known(clean, asked),
            x=x,
            previous=self.denoise.start(x),
            sampler=parts.sampler.init(x),
            memory=self.memory(self.parts.exit, count),
            settling=rows.part(self.memory(self.parts.freeze, count * self.length), self.length),
        )

    def _clean(self, ids: Ids) -> Tensor:
        """x0 of ``ids``, in single precision at least."""
        clean = self.parts.space.embed(ids)
        narrow = clean.is_floating_point() and clean.dtype.itemsize < 4
        return clean.float() if narrow else clean

    def _known(self, clean: Tensor, asked: Template) -> Conditioning:
        """Conditioning on the given positions of ``clean``."""
        level = self.level(torch.full_like(asked.row, self.steps), clean)
        read = self.parts.space.corruption.input(clean, level)
        return Conditioning.of(read, asked.given, asked.attend)

    def memory(self, rule: ExitCriterion | None, count: int) -> Any:
        """The memory that ``rule`` has of ``count`` rows or positions that have taken no step."""
        with self.parts.device:
            return () if rule is None else rule.init(count)

    @torch.no_grad()
    def turn(self, slots: Slots) -> tuple[Slots, Step]:
        """One sampler step of the live rows, then statistics, exit rule and finished texts."""
        prediction, stepped = self._advance(slots)
        statistics = self._statistics(slots, stepped, prediction)
        halt = torch.zeros_like(slots.live)
        if self.parts.exit is not None:
            halt, memory = self.parts.exit(statistics, slots.memory)
            stepped = replace(stepped, memory=memory)
        ended = halt
        if self.parts.freeze is not None:
            stepped = self._settle(self.parts.freeze, slots, stepped, prediction, statistics)
            ended = halt | ~stepped.generated.any(dim=1)
        origin, slots = slots.x, freeze(slots, stepped)
        ended = slots.live & (ended | (slots.position == self.steps))
        step = Step(
            row=slots.template.row,
            live=slots.live,
            done=slots.position,
            x=slots.x,
            origin=origin,
            prediction=prediction,
            statistics=statistics,
            samples=self._samples(slots, prediction, ended, halt),
            evaluations=self.network.rows,
        )
        return replace(slots, live=slots.live & ~ended), step

    def refill(self, slots: Slots, queue: Iterator[Request], width: Width) -> Slots:
        """Give free slots to the next requests; shrink when there are none left."""
        free = (~slots.live).nonzero()[:, 0]
        requests = list(islice(queue, len(free)))
        if requests:
            slots = refill(slots, free[: len(requests)], self.open(requests, len(requests)))
        if len(requests) < len(free):
            slots = compact(slots, width(int(slots.live.sum()), len(slots.live)))
        return slots

    def _advance(self, slots: Slots) -> tuple[Prediction, Slots]:
        """Every row one step on, frozen ones in vain."""
        point = slots.position.clamp(max=self.steps - 1)
        x, prediction, state = self.parts.sampler.step(
            lambda x, level, previous: self.denoise(x, level, previous, slots.conditioning),
            self.parts.space.corruption,
            slots.x,
            self.level(point, slots.x),
            self.level(point + 1, slots.x),
            slots.sampler,
            Noise.keyed(self.seed, slots.template.row, point).fork(STEP),
            slots.previous,
        )
        if any(statistic.needs_top for statistic in self.parts.statistics.values()):
            top = self.parts.space.top(prediction.query)
            prediction = replace(prediction, top=top)
        return prediction, replace(
            slots,
            position=point + 1,
            x=x,
            previous=prediction.feedback,
            sampler=state,
            before=prediction,
        )

    def _statistics(
        self, slots: Slots, stepped: Slots, prediction: Prediction
    ) -> dict[str, PerRow]:
        level = self.level(stepped.position - 1, slots.x)
        done = stepped.position.to(level.sigma.dtype)
        values = {"step": done, "fraction": done / self.steps, "sigma": level.sigma / level.alpha}
        before = prediction if slots.before is None else slots.before
        for name, statistic in self.parts.statistics.items():
            values[name] = statistic(
                self.parts.space, prediction, before, slots.position > 0, slots.generated
            )
        return values

    def _settle(
        self,
        rule: ExitCriterion,
        slots: Slots,
        stepped: Slots,
        prediction: Prediction,
        statistics: Mapping[str, PerRow],
    ) -> Slots:
        """``stepped`` with the positions at which ``rule`` holds given from the next step on."""
        now, memory = settled(rule, self.parts, slots, prediction, statistics)
        stepped = replace(stepped, settling=memory)
        if not bool(now.any()):
            return stepped
        likeliest = self.parts.space.decode(stepped.x, prediction.query)
        asked = replace(
            slots.template,
            ids=torch.where(now, likeliest, slots.template.ids),
            given=slots.template.given | now,
        )
        known = self._known(self._clean(asked.ids), asked)
        return replace(stepped, template=asked, conditioning=known)

    def _samples(
        self, slots: Slots, prediction: Prediction, ended: Rows, halt: Rows
    ) -> tuple[Sample, ...]:
        """The texts of the rows ``ended``: given positions as given, padding left out."""
        index = ended.nonzero()[:, 0]
        if len(index) == 0:
            return ()
        asked, position, memory, x, query = rows.take(
            (slots.template, slots.position, slots.memory, slots.x, prediction.query), index
        )
        ids = torch.where(asked.given, asked.ids, self.parts.space.decode(x, query))
        return tuple(
            Sample(
                row=int(asked.row[i]),
                ids=tuple(ids[i][asked.attend[i]].tolist()),
                steps=int(position[i]),
                evaluations=self._evaluations(int(position[i])),
                halted=self._reason(
                    int(position[i]), bool(halt[index[i]]), rows.take(memory, torch.tensor([i]))
                ),
            )
            for i in range(len(index))
        )

    def _evaluations(self, position: int) -> int:
        """Network evaluations of a row's first ``position`` steps, guidance branches included."""
        branches = self.network.rows // self.denoise.rows
        last = torch.arange(1, position + 1) == self.steps
        return branches * int(self.parts.sampler.evaluations(last).sum())

    def _reason(self, position: int, halted: bool, memory: Any) -> str | None:
        """Why a row ended: its rule, every position being settled, or (None) the grid's end."""
        if position == self.steps:
            return None
        if halted and self.parts.exit is not None:
            return self.parts.exit.reason(memory)
        return REASON

"""Traces: full runs recorded once, from which any rule that only truncates is replayed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlmkit import rows
from dlmkit.errors import UsageError
from dlmkit.exits.scores import ScoreAngles
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request, template
from dlmkit.sampling.snapshot import Snapshot
from dlmkit.types import Ids, Index, Mask, PerPosition

NORMS = ("x", "x0")
"""Norms that :attr:`Trace.norms` may hold: of x after each step, of the x0 predicted before it."""

ANGLE = "score_angle"
"""What :attr:`Trace.norms` may hold beside them: see :class:`ScoreAngles`."""


@dataclass(frozen=True)
class Trace:
    """B texts over the N steps of their grid, on the CPU. Axis 0 of every tensor but one is a row.

    ``ids[b, k]`` is what text b would be if it stopped after step k + 1: its likeliest tokens,
    the given ones as given, 0 at padding. ``statistics`` are those an exit rule reads, as the run
    computed them, built-in ones included. ``evaluations[k]`` are the network evaluations of a
    text's first k + 1 steps. ``positions`` (per-position statistics, half precision) and ``norms``
    (Euclidean, a mean over generated positions; and the angle between the scores of a step and
    the one before, in degrees) are for viewers and empty unless asked for. ``about`` says in JSON
    types what was run.
    """

    row: Index
    ids: Int[Tensor, "B N L"]
    given: Mask
    attend: Mask
    statistics: Mapping[str, Float[Tensor, "B N"]]
    evaluations: Int[Tensor, "N"]
    positions: Mapping[str, Float[Tensor, "B N L"]] = field(default_factory=dict)
    norms: Mapping[str, Float[Tensor, "B N"]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """N, the steps of the grid."""
        return self.ids.shape[1]

    @property
    def generated(self) -> Mask:
        """Positions that are neither given nor padding."""
        return self.attend & ~self.given

    @property
    def full(self) -> Ids:
        """The texts of the full run."""
        return self.ids[:, -1]

    def take(self, index: Tensor) -> Trace:
        """The texts ``index`` (positions, or a bool mask) of this trace."""
        per_row = ("row", "ids", "given", "attend", "statistics", "positions", "norms")
        kept = {name: rows.take(getattr(self, name), index) for name in per_row}
        return replace(self, **kept)


class TraceRecorder:
    """Consumes the steps of a run without an exit rule and keeps its trace.

    ``positions`` names the statistics to keep at every position as well; ``norms`` keeps those of
    x and x0 and, where noise is Gaussian, the angle of the score. Raises UsageError for rules that
    exit or freeze positions, for a statistic that ``parts`` lack or that compares two steps, and
    for norms of a discrete x.
    """

    def __init__(
        self,
        parts: SamplingParts,
        requests: Sequence[Request],
        *,
        steps: int,
        length: int,
        positions: Collection[str] = (),
        norms: bool = False,
    ) -> None:
        if parts.exit is not None or parts.freeze is not None:
            raise UsageError(
                "a trace holds full runs: record it without rules that exit or freeze (freezing a "
                "position changes its neighbours, so it cannot be replayed: run it for real)"
            )
        _check_positions(parts, positions)
        self.parts = parts
        self.space = parts.space.prepared(parts.inference.dtype)
        self.asked = template(requests, length, torch.device("cpu"))
        self.norms = norms
        self._angles = ScoreAngles(parts, steps) if norms and ScoreAngles.exist(parts) else None
        self._names = tuple(positions)
        self._place = {row: place for place, row in enumerate(self.asked.row.tolist())}
        self._shape = (len(requests), steps)
        narrow = parts.space.vocab_size <= torch.iinfo(torch.int16).max
        self._ids = torch.zeros(
            (*self._shape, length), dtype=torch.int16 if narrow else torch.int32
        )
        self._kept: dict[str, dict[str, Tensor]] = {"statistics": {}, "positions": {}, "norms": {}}
        self._evaluations = 0

    def watch(self, turns: Iterator[Snapshot]) -> Iterator[Snapshot]:
        """The same steps, recorded as they pass."""
        for step in turns:
            self._keep(step)
            yield step

    @torch.no_grad()
    def _keep(self, step: Snapshot) -> None:
        live = step.live.nonzero()[:, 0]
        place = torch.tensor([self._place[row] for row in step.row[live].tolist()])
        done = step.done[live].cpu() - 1
        given, ids = self.asked.given[place], self.asked.ids[place]
        decoded = self.space.decode(step.x, step.prediction.query)[live].cpu()
        decoded = torch.where(self.asked.attend[place], decoded, 0)
        self._ids[place, done] = torch.where(given, ids, decoded).to(self._ids.dtype)
        for name, value in step.statistics.items():
            self._put("statistics", name, place, done, value[live])
        for name in self._names:
            value = self._per_position(name, step)[live]
            self._put("positions", name, place, done, value.half())
        if self.norms:
            generated = self.asked.attend[place] & ~given
            for name, value in zip(NORMS, (step.x, step.prediction.x0_mean), strict=True):
                self._put("norms", name, place, done, _norm(value[live].cpu(), generated))
            if self._angles is not None:
                turned = self._angles(step, live, done, generated)
                self._put("norms", ANGLE, place, done, turned)
        self._evaluations = max([self._evaluations, *(s.evaluations for s in step.samples)])

    def _per_position(self, name: str, step: Snapshot) -> PerPosition:
        statistic = self.parts.statistics[name]
        return statistic.per_position(self.space, step.prediction, step.prediction)

    def _put(self, group: str, name: str, place: Tensor, done: Tensor, value: Tensor) -> None:
        kept, value = self._kept[group], value.cpu()
        if name not in kept:
            kept[name] = value.new_full((*self._shape, *value.shape[1:]), torch.nan)
        kept[name][place, done] = value

    def trace(self, about: Mapping[str, Any] | None = None) -> Trace:
        """What was recorded; call it once the run has ended."""
        per_step = self.parts.sampler.evaluations(
            torch.arange(1, self._shape[1] + 1) == self._shape[1]
        )
        cost = per_step.long().cumsum(dim=0)
        return Trace(
            row=self.asked.row,
            ids=self._ids,
            given=self.asked.given,
            attend=self.asked.attend,
            evaluations=cost * (self._evaluations // int(cost[-1])),
            about=dict(about or {}),
            **self._kept,
        )


def _check_positions(parts: SamplingParts, names: Collection[str]) -> None:
    for name in names:
        if name not in parts.statistics:
            there = ", ".join(parts.statistics) or "none"
            raise UsageError(f"there is no statistic {name!r} to keep by position; there: {there}")
        if parts.statistics[name].needs_before:
            raise UsageError(f"statistic {name!r} compares two steps: it is kept by row alone")


def _norm(value: Tensor, generated: Mask) -> Float[Tensor, "B"]:
    if not value.is_floating_point():
        raise UsageError("this model's x is discrete: it has no norm to record")
    norms = value.flatten(start_dim=2).norm(dim=-1)
    total = torch.where(generated, norms, 0.0).sum(dim=1)
    return total / generated.sum(dim=1).clamp(min=1)

"""Quotas: a schedule, or as many as the model is sure of."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.candidates import CHANCE, Candidates, by_rank, first
from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.exits import BUILT_IN, ExitCriterion, Statistic, at_positions
from dlmkit.core.quota import Quota
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import in_blocks, masked_share
from dlmkit.plugin import Part
from dlmkit.types import Ids, Index, Mask, PerPosition, PerRow, Query
from dlmkit_masked import configs

_ROUNDING = 1e-9
"""Of shares in double precision: a whole number stays one."""


def share(level: Level) -> PerRow:
    """The share of masked tokens at a level, float64[B]: chances are compared in it."""
    return masked_share(Level(level.alpha.double(), level.sigma.double()))


class Schedule(Quota):
    """The share that stays masked is a function of the step (MDLM, MaskGIT, LLaDA).

    Of the positions that are masked, those stay for which a uniform number lies below the share
    after the step over the share before it, or as many as that is of their number, rounded down.
    """

    order, on_grid = "masked:random", True

    def __init__(self, config: configs.Schedule, context: BuildContext) -> None:
        self.config = config

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        stays = self._stays(candidates)
        masked = candidates.masked if self.config.shape == "level" else candidates.open
        if self.config.count == "fixed":
            total = masked.sum(dim=1)
            count = total - (total * stays + _ROUNDING).floor().long()
            count = torch.where(stays < 1.0, count.clamp(min=1), 0)
            return (rank < count[:, None]) & candidates.open, memory
        u = candidates.step.noise.uniform(CHANCE, rank.shape[1:], torch.float64)
        count = (masked & (u >= stays[:, None])).sum(dim=1)
        return (rank < count[:, None]) & candidates.open, memory

    def _stays(self, candidates: Candidates) -> PerRow:
        """The share of the masked positions that stay, float64[B]."""
        if self.config.shape == "level":
            step = candidates.step
            here, after = (share(level) for level in (step.here, step.next))
            return after / here
        before, after = (self._shape(u) for u in candidates.progress)
        return after / before

    def _shape(self, u: Tensor) -> Tensor:
        """The share that is masked after a share ``u`` of the steps: from 1 to 0."""
        on, off = self.config.on, self.config.off
        if self.config.shape == "cosine":
            return torch.cos(0.5 * math.pi * u)
        if self.config.shape == "square":
            return 1.0 - u.square()
        if self.config.shape == "root":
            return 1.0 - u.sqrt()
        if self.config.shape == "plateau":
            moved = u.clamp(max=on) + (u - off).clamp(min=0.0)
            return 1.0 - moved / (1.0 - (off - on))
        return 1.0 - u

    def share(self, masked: PerRow, memory: Any) -> PerRow | None:
        return None if self.config.shape == "level" else masked


class TokensPerStep(Quota):
    """The same number of positions at every step."""

    def __init__(self, config: configs.TokensPerStep, context: BuildContext) -> None:
        self.tokens = config.tokens

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        return first(rank, torch.full_like(rank[:, 0], self.tokens), candidates.open), memory


class FirstHitting(Quota):
    """One position a step, at the time at which the process would write it (2409.02908).

    Of n masked positions the next is written at m u^(1/n), where m is the share of masked tokens
    now and u a uniform number. The network is told that share; to one that reads no level this is
    one token a step.
    """

    order = "masked:random"

    def __init__(self, config: configs.Nothing, context: BuildContext) -> None:
        pass

    def init(self, x: Tensor) -> PerRow:
        return torch.ones(len(x), dtype=torch.float64, device=x.device)

    def accept(self, rank: Ids, candidates: Candidates, memory: PerRow) -> tuple[Mask, PerRow]:
        u = candidates.step.noise.uniform(CHANCE, (), torch.float64)
        count = candidates.masked.sum(dim=1)
        return first(rank, torch.ones_like(count), candidates.open), memory * u ** (
            1.0 / count.clamp(min=1)
        )

    def share(self, masked: PerRow, memory: PerRow) -> PerRow | None:
        return memory.to(masked.dtype)


class Threshold(Quota):
    """All positions whose likeliest token has at least this probability (Fast-dLLM, 2505.22618)."""

    def __init__(self, config: configs.Threshold, context: BuildContext) -> None:
        self.least = math.log(config.threshold)

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        sure = (candidates.certainty.first >= self.least) | (rank == 0)
        return sure & candidates.open, memory


class Factor(Quota):
    """The largest n with (n + 1)(1 - p) < f, p the least probability of the first n (Fast-dLLM,
    section 3.3)."""

    def __init__(self, config: configs.Factor, context: BuildContext) -> None:
        self.factor = config.factor

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        doubt = by_rank(torch.expm1(candidates.certainty.first).neg(), rank)
        n = torch.arange(1, rank.shape[1] + 1, device=rank.device)
        holds = (n + 1) * doubt.cummax(dim=1).values < self.factor
        return first(rank, _largest(holds, n), candidates.open), memory


class EntropyBound(Quota):
    """The largest n of which the entropies but the largest sum to gamma at most (EB-Sampler,
    2505.24857)."""

    order = "masked:entropy"

    def __init__(self, config: configs.EntropyBound, context: BuildContext) -> None:
        self.bound = config.bound

    def accept(self, rank: Ids, candidates: Candidates, memory: Any) -> tuple[Mask, Any]:
        entropy = by_rank(candidates.certainty.entropy, rank)
        n = torch.arange(1, rank.shape[1] + 1, device=rank.device)
        holds = entropy.cumsum(dim=1) - entropy.cummax(dim=1).values <= self.bound
        return first(rank, _largest(holds, n), candidates.open), memory


def _largest(holds: Tensor, n: Tensor) -> Index:
    """The largest of ``n`` at which ``holds`` (B, N), 0 if there is none."""
    return torch.where(holds, n, 0).amax(dim=1)


class _Seen(NamedTuple):
    """Of each position: the query at its last step, and for how many steps it has not moved.

    ``steps`` is below 0 before the first.
    """

    query: Query
    steps: Ids


class Stable(Quota):
    """Certain positions whose prediction moved by less than epsilon at each of the last steps, in
    KL(now || before) (KLASS, 2511.05664); else the first."""

    def __init__(self, config: configs.Stable, context: BuildContext) -> None:
        self.space: EmbeddingSpace = context.part("space")
        self.config, self.least = config, math.log(config.threshold)

    def init(self, x: Tensor) -> _Seen:
        size = (*x.shape[:2], self.space.query_dim)
        query = torch.zeros(size, dtype=torch.float32, device=x.device)
        return _Seen(query, torch.full_like(query[..., 0], -1, dtype=torch.int64))

    def accept(self, rank: Ids, candidates: Candidates, memory: _Seen) -> tuple[Mask, _Seen]:
        now = candidates.prediction.query
        moved = self._moved(now, memory.query, candidates.open)
        still = (moved < self.config.kl) & (memory.steps >= 0)
        steps = torch.where(still, memory.steps + 1, 0)
        sure = (steps >= self.config.steps) & (candidates.certainty.first > self.least)
        return (sure | (rank == 0)) & candidates.open, _Seen(now, steps)

    def _moved(self, now: Query, before: Query, still_open: Mask) -> Tensor:
        """KL(now || before) at the positions ``still_open``, 0 elsewhere, in nats."""
        result = torch.zeros_like(still_open, dtype=torch.float32)
        for at in in_blocks(still_open, self.space.vocab_size):
            p, r = (
                self.space.logits(query[at][None])[0].float().log_softmax(dim=-1)
                for query in (now, before.to(now.dtype))
            )
            weight = p.exp()
            result[at] = torch.where(weight == 0, 0.0, weight * (p - r)).sum(dim=-1)
        return result


class _Before(NamedTuple):
    """The rule's memory by position, and the query and log-normaliser of the step before."""

    rule: Any
    query: Query
    lse: PerPosition
    x0: Tensor


class ByRule(Quota):
    """The positions at which an exit rule holds, else the first: what `freeze` is to continuous
    models."""

    def __init__(self, config: configs.ByRule, context: BuildContext) -> None:
        self.space: EmbeddingSpace = context.part("space")
        self.rule: ExitCriterion = context.build("exit", config.rule)
        self.statistics: dict[str, Statistic] = {
            name: context.build("statistic", Part(use=name))
            for name in self.rule.needs
            if name not in BUILT_IN
        }

    def init(self, x: Tensor) -> _Before:
        with x.device:
            memory = rows.part(self.rule.init(x.numel()), x.shape[1])
        query = torch.zeros((*x.shape, self.space.query_dim), device=x.device)
        return _Before(memory, query, query[..., 0], torch.zeros_like(x))

    def accept(self, rank: Ids, candidates: Candidates, memory: _Before) -> tuple[Mask, _Before]:
        now, step = candidates.prediction, candidates.step
        values = {
            "step": step.index + 1.0,
            "fraction": (step.index + 1.0) / step.steps,
            "sigma": step.ratio.flatten(),
        }
        by_position = {name: v[:, None].expand(rank.shape) for name, v in values.items()}
        before = Prediction(memory.x0, memory.query, memory.lse, memory.x0, ())
        by_position |= {
            name: self._value(statistic, now, before, candidates)
            for name, statistic in self.statistics.items()
        }
        asked = {name: by_position[name] for name in self.rule.needs}
        holds, rule = at_positions(self.rule, asked, memory.rule)
        kept = _Before(rule, now.query, now.lse, now.x0_mean)
        return (holds | (rank == 0)) & candidates.open, kept

    def _value(
        self, statistic: Statistic, now: Prediction, before: Prediction, candidates: Candidates
    ) -> PerPosition:
        """``statistic`` at the open positions, block by block; elsewhere 0."""
        result = torch.zeros_like(now.lse)
        for at in in_blocks(candidates.open, self.space.vocab_size):
            here, there = (_part(prediction, at) for prediction in (now, before))
            result[at] = statistic.per_position(self.space, here, there)[0].to(result.dtype)
        if statistic.needs_before:
            result = torch.where(candidates.step.index[:, None] > 0, result, torch.inf)
        return result


def _part(prediction: Prediction, at: tuple[Tensor, Tensor]) -> Prediction:
    """What ``prediction`` says at some positions, as of one row."""
    x0, query = prediction.x0_mean[at][None], prediction.query[at][None]
    return Prediction(x0, query, prediction.lse[at][None], x0, ())

"""The training loop: a generator that yields one record an optimiser step, and nothing else.

Checkpoints, validation, samples, logs and trackers are the business of whoever drains it, at the
step boundaries that a record marks. The loop knows no kind of component by name.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmkit import rows as row_first
from dlmkit.core.data import Stream
from dlmkit.core.objective import Batch, LossParts, Objective, Slots
from dlmkit.errors import NonFiniteLossError
from dlmkit.recipe.schema import TrainConfig
from dlmkit.training.draws import dealt, draws, micro_batches, stratified
from dlmkit.training.ema import Ema
from dlmkit.training.feed import Feed, feed
from dlmkit.training.feed import Rows as FeedRows
from dlmkit.training.optimiser import build_optimiser, learning_rate
from dlmkit.training.parallel import World
from dlmkit.types import Index, PerRow, Rows

_COLUMNS = 5  # of a row in Observed


@dataclass(frozen=True)
class StepRecord:
    """What one optimiser step did.

    ``step`` counts finished steps (from 1). ``loss`` is the mean cross-entropy in nats over all
    noised positions of the global batch, ``gradient_norm`` that of its gradient before clipping,
    ``tokens`` the global batch's positions that are not padding, ``data_seconds`` the part of
    ``seconds`` spent waiting for data.
    """

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    seconds: float
    data_seconds: float


@dataclass
class Learner:
    """All that training changes. ``step`` counts the optimiser steps done.

    ``stream_state`` is the data's state after the rows of those steps. ``before`` counts the
    steps that the weights had behind them when this learner began, of another training: a loss
    that is annealed goes on from there.
    """

    objective: Objective
    wrapped: nn.Module
    optimiser: torch.optim.AdamW
    ema: Ema
    step: int = 0
    stream_state: Mapping[str, Any] = field(default_factory=dict)
    before: int = 0

    @staticmethod
    def begin(objective: Objective, config: TrainConfig, world: World, before: int = 0) -> Learner:
        """A learner that has taken no step. Call it before the objective's blocks are compiled."""
        ema = Ema(objective, config.ema)
        wrapped = world.wrap(objective)
        if world.sharded:
            ema.shard(world)
        return Learner(objective, wrapped, build_optimiser(objective, config), ema, before=before)


def train(
    learner: Learner,
    stream: Stream,
    config: TrainConfig,
    seed: int,
    world: World,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[StepRecord, None, None]:
    """Train from ``learner.step`` to ``config.steps``, one record a step.

    Ends early, between two steps, once ``stop()`` holds in any process; it is asked while
    waiting for data as well. Raises NonFiniteLossError before any weight is touched, and what
    reading data raises in one process in all of them.

    torch's global generators are seeded anew in every step, so that a network which draws from
    them (dropout) repeats itself after a resume; nothing here draws from them.
    """
    slots = micro_batches(config.batch_size, config.micro_batch_size, world.size, world.rank)
    run = _Run(learner, config, seed, world, slots, [s.index(world.device) for s in slots])
    steps = range(learner.step, config.steps)
    with feed(stream, torch.cat([s.index() for s in slots]), steps, world.device) as ahead:
        for step in steps:
            began = time.perf_counter()
            rows, failed = _next(ahead, stop)
            if world.any(rows is None) or rows is None:
                world.agree(failed)
                return
            waited = time.perf_counter() - began
            loss, norm, tokens = run.update(step, rows.batch)
            learner.step, learner.stream_state = step + 1, rows.state
            yield StepRecord(
                step=step + 1,
                loss=loss,
                gradient_norm=norm,
                learning_rate=learning_rate(step, config),
                tokens=tokens,
                seconds=time.perf_counter() - began,
                data_seconds=waited,
            )


def _next(ahead: Feed, stop: Callable[[], bool]) -> tuple[FeedRows | None, Exception | None]:
    try:
        return ahead.next(stop), None
    except Exception as error:
        return None, error


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[None]:
    """The precision that the recipe asks for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


@dataclass(frozen=True)
class _Run:
    """What stays the same from step to step. ``slots`` are those of each forward pass, ``index``
    the same on the device."""

    learner: Learner
    config: TrainConfig
    seed: int
    world: World
    slots: list[Slots]
    index: list[Tensor]  # a pass may have fewer rows than another

    def update(self, step: int, batch: Batch) -> tuple[float, float, int]:
        """One optimiser step: (loss, gradient norm, tokens)."""
        # a power of two, so that scaling there and back changes no bit
        scale = 2.0 ** -(self.config.batch_size * batch.ids.shape[1]).bit_length()
        parts = self._backward(step, batch, scale)
        (loss_sum, count, tokens), observed = self._gathered(parts, batch)
        weights = self.learner.objective.parameters()
        gradients = [self.world.local(p.grad) for p in weights if p.grad is not None]
        some = count.clamp(min=1)
        to_mean = self.world.size / (scale * some)
        norm = self.world.norm(gradients).double() * to_mean
        said = observed.unconditional.sum()
        # the step's one wait
        numbers = torch.stack((loss_sum / some, norm, tokens, count, said)).tolist()
        if not all(map(math.isfinite, numbers)):
            raise NonFiniteLossError(_complaint(step + 1, numbers[0], numbers[1], observed))
        clip = self.config.clip or math.inf
        to_clipped = to_mean * min(1.0, clip / (numbers[1] + 1e-6))
        torch._foreach_mul_(gradients, to_clipped.to(gradients[0].dtype))
        self._apply(step, observed, noised=numbers[3] > 0, said=numbers[4] > 0)
        return numbers[0], numbers[1], int(numbers[2])

    def _backward(self, step: int, batch: Batch, scale: float) -> list[LossParts]:
        """Gradients of ``scale`` times the loss sums of all passes of this process."""
        u = stratified(self.seed, step, self.config.batch_size, self.world.device)
        torch.manual_seed(hash((self.seed, step, self.world.rank)))
        wrapped = self.learner.wrapped
        parts: list[LossParts] = []
        for rows, slots in zip(self._passes(batch), self.slots, strict=True):
            last = len(parts) == len(self.slots) - 1
            with self.world.accumulating(wrapped, last):
                with autocast(self.config, self.world.device):
                    loss: LossParts = wrapped(
                        rows, draws(self.seed, step, slots, u, self.learner.before)
                    )
                (loss.loss_sum * scale).backward()
            parts.append(loss)
        return parts

    def _passes(self, batch: Batch) -> Iterator[Batch]:
        sizes = [len(part) for part in self.slots]
        for end, size in zip(itertools.accumulate(sizes), sizes, strict=True):
            part = partial(self._moved, at=slice(end - size, end))
            yield row_first.each(batch, part)

    def _moved(self, tensor: Tensor, at: slice) -> Tensor:
        return tensor[at].to(self.world.device, non_blocking=True)

    def _gathered(self, parts: list[LossParts], batch: Batch) -> tuple[Tensor, Observed]:
        """Of the global batch: (loss sum, noised positions, tokens), and its rows."""
        loss_sum = torch.stack([part.loss_sum.detach().double() for part in parts]).sum()
        count = torch.stack([part.count.double() for part in parts]).sum()
        tokens = torch.full_like(count, int(batch.attend.sum()))
        own = F.pad(torch.stack((loss_sum, count, tokens)), (0, _COLUMNS - 3))
        rows = [
            torch.stack([column.double() for column in columns], dim=1)
            for slots, part in zip(self.index, parts, strict=True)
            for columns in [(slots, part.t, part.per_row, part.pdf, part.unconditional)]
        ]
        # one collective a step, not one for the totals and two for the rows
        counts = [1 + count for count in dealt(self.config.batch_size, self.world.size)]
        found = self.world.gather(torch.cat((own[None], *rows)), counts)
        totals = torch.stack([each[0, :3] for each in found]).sum(dim=0)
        table = torch.cat([each[1:] for each in found])
        slot, t, loss, pdf, unconditional = table[table[:, 0].argsort()].unbind(dim=1)
        return totals, Observed(slot.long(), t, loss, pdf, unconditional.bool())

    def _apply(self, step: int, observed: Observed, noised: bool, said: bool) -> None:
        """The optimiser's step, then what follows the weights: the learned schedule and the EMA.

        What saw nothing stays as it is, though its momentum would move it: all of it without a
        ``noised`` position, the schedule without a row that it may be ``said`` anything by.
        """
        learner = self.learner
        if not noised:
            learner.optimiser.zero_grad(set_to_none=True)
            return
        for group in learner.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.config)
        learner.optimiser.step()
        learner.optimiser.zero_grad(set_to_none=True)
        if said:
            learner.objective.schedule.observe(
                observed.t, observed.loss, observed.pdf, observed.unconditional
            )
        learner.ema.update(step + 1, self.world)


@dataclass(frozen=True)
class Observed:
    """The rows of one step, in order of their slots, as a learned schedule sees them.

    In this order whatever the processes and passes, so that the schedule's sums round alike.
    """

    slot: Index
    t: PerRow
    loss: PerRow
    pdf: PerRow
    unconditional: Rows


def _complaint(step: int, loss: float, norm: float, seen: Observed) -> str:
    bad = (~seen.loss.isfinite()).nonzero()[:, 0].tolist()
    rows = ", ".join(f"{int(seen.slot[i])} (t = {float(seen.t[i]):.4g})" for i in bad[:16])
    what = f"rows of its batch with a non-finite loss: {rows}"
    if len(bad) > 16:
        what += f" and {len(bad) - 16} more of {len(seen.loss)}"
    if not bad:
        worst = int(seen.loss.argmax())
        what = (
            f"every row's loss is finite (the largest is {float(seen.loss[worst]):.4g}, row "
            f"{int(seen.slot[worst])} at t = {float(seen.t[worst]):.4g}): the gradient overflowed"
        )
    return f"step {step}: the loss is {loss:.4g} and its gradient's norm {norm:.4g}; {what}"

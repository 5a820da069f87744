"""The training loop: a generator that yields one record per optimiser step, and nothing else.

Checkpoints, validation, samples, logs and trackers are the business of whoever drains it, at the
step boundaries that a record marks. The loop knows no kind of component by name.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dlmkit import rows as row_first
from dlmkit.core.data import Stream
from dlmkit.core.objective import Batch, Draws, LossParts, Slots
from dlmkit.errors import NonFiniteLossError
from dlmkit.recipe.schema import TrainConfig
from dlmkit.training.draws import draws, micro_batches, stratified
from dlmkit.training.feed import feed
from dlmkit.training.learner import Learner
from dlmkit.training.observed import Gathering, complaint
from dlmkit.training.optimiser import learning_rate
from dlmkit.training.parallel import World


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


def train(
    learner: Learner,
    stream: Stream,
    config: TrainConfig,
    seed: int,
    world: World,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[StepRecord, None, None]:
    """Train from ``learner.step`` to ``config.steps``, one record per step.

    Ends early, between two steps, once ``stop()`` holds in any process; it is asked while
    waiting for data as well. Raises NonFiniteLossError before any weight is touched, and what
    reading data raises in one process in all of them.

    torch's global generators are seeded anew in every step, so that a network which draws from
    them (dropout) repeats itself after a resume; nothing here draws from them.
    """
    passes = micro_batches(config.batch_size, config.micro_batch_size, world.size, world.rank)
    update = Update(learner, config, seed, world, passes, Gathering.of(passes, world))
    steps = range(learner.step, config.steps)
    with feed(stream, torch.cat([p.index() for p in passes]), steps, world.device) as ahead:
        for step in steps:
            began = time.perf_counter()
            rows, failed = ahead.attempt(stop)
            if world.any(rows is None) or rows is None:
                world.agree(failed)
                return
            waited = time.perf_counter() - began
            loss, norm, tokens = update(rows.batch)
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


@dataclass(frozen=True)
class Update:
    """One optimiser step, and what stays the same from step to step. ``passes`` are the slots of
    each forward pass of this process; one may have fewer rows than another."""

    learner: Learner
    config: TrainConfig
    seed: int
    world: World
    passes: list[Slots]
    gathering: Gathering

    def __call__(self, batch: Batch) -> tuple[float, float, int]:
        """(loss, gradient norm, tokens) of the global batch, of which ``batch`` is here."""
        learner, world, precision = self.learner, self.world, self.config.precision
        # a power of two, so that scaling there and back changes no bit
        scale = 2.0 ** -(self.config.batch_size * batch.ids.shape[1]).bit_length()
        parts: list[LossParts] = []
        for rows, drawn in self._rows(batch):
            with world.accumulating(learner.wrapped, last=len(parts) == len(self.passes) - 1):
                with torch.autocast(world.device.type, torch.bfloat16, precision == "bf16"):
                    loss: LossParts = learner.wrapped(rows, drawn)
                (loss.loss_sum * scale).backward()
            parts.append(loss)
        seen = self.gathering.observed(parts, batch)
        weights = learner.objective.parameters()
        gradients = [world.local(p.grad) for p in weights if p.grad is not None]
        some = seen.count.clamp(min=1)
        to_mean = world.size / (scale * some)
        norm = world.norm(gradients).double() * to_mean
        # the step's one wait
        numbers = torch.stack(
            (seen.loss_sum / some, norm, seen.tokens, seen.count, seen.unconditional.sum())
        ).tolist()
        if not all(map(math.isfinite, numbers)):
            raise NonFiniteLossError(complaint(learner.step + 1, numbers[0], numbers[1], seen))
        clip = self.config.clip or math.inf
        to_clipped = to_mean * min(1.0, clip / (numbers[1] + 1e-6))
        torch._foreach_mul_(gradients, to_clipped.to(gradients[0].dtype))
        if numbers[3] > 0:  # else nothing was learned, though momentum would move the weights
            learner.apply(learning_rate(learner.step, self.config), seen, world, numbers[4] > 0)
        learner.optimiser.zero_grad(set_to_none=True)
        return numbers[0], numbers[1], int(numbers[2])

    def _rows(self, batch: Batch) -> Iterator[tuple[Batch, Draws]]:
        """The rows of each pass, on the device, with their randomness."""
        step, device = self.learner.step, self.world.device
        u = stratified(self.seed, step, self.config.batch_size, device)
        torch.manual_seed(hash((self.seed, step, self.world.rank)))
        first = 0
        for slots in self.passes:
            taken = slice(first, first + len(slots))
            rows = row_first.mapped(batch, partial(_moved, taken=taken, device=device))
            yield rows, draws(self.seed, step, slots, u, self.learner.before)
            first = taken.stop


def _moved(tensor: Tensor, taken: slice, device: torch.device) -> Tensor:
    return tensor[taken].to(device, non_blocking=True)

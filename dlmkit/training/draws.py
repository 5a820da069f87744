"""Which rows of the global batch a process takes in which pass, and their randomness."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlmkit.core.objective import Draws
from dlmkit.errors import RecipeError
from dlmkit.noise import Noise
from dlmkit.types import Index, PerRow

TRAINING = 0x7241
"""The domain that keeps training's noise apart from sampling's and validation's."""

_ROWS, _ORDER, _OFFSET = range(3)


def micro_batches(batch_size: int, micro: int | None, size: int, rank: int) -> list[Index]:
    """The slots of each forward pass of process ``rank`` of ``size``, at most ``micro`` in each.

    Passes are dealt like cards: pass j of all K takes the slots j, j + K, j + 2K, ... A share of
    the first rows of every pass is then the same share of the first slots, however many passes
    and processes there are. Raises RecipeError if some process would get an empty pass.
    """
    rows = math.ceil(batch_size / size)
    passes = math.ceil(rows / (micro or rows))
    if batch_size < size * passes:
        raise RecipeError(
            f"train.batch_size: {batch_size} rows cannot be dealt to {size} processes in "
            f"{passes} passes each; take a multiple of {size * passes}"
        )
    return [torch.arange(rank + size * i, batch_size, size * passes) for i in range(passes)]


def dealt(batch_size: int, size: int) -> list[int]:
    """How many rows :func:`micro_batches` gives to each of ``size`` processes."""
    return [len(range(rank, batch_size, size)) for rank in range(size)]


def stratified(seed: int, step: int, size: int, device: torch.device) -> PerRow:
    """u of every slot of a global batch of ``size``: one in each of ``size`` equal intervals.

    u = frac(u_0 + pi(slot) / size) with one offset u_0 and one permutation pi a step, so that
    neighbouring slots are no neighbours in u.
    """
    slots = torch.arange(size, device=device)
    noise = Noise.keyed(seed, slots, step).fork(TRAINING)
    order = noise.fork(_ORDER).uniform(0, dtype=torch.float64).argsort()
    offset = noise.fork(_OFFSET).uniform(0, dtype=torch.float64)[0]
    u = (offset + order / size).frac().float()
    return u.clamp(max=1.0 - 2.0**-24)


def draws(seed: int, step: int, slots: Index, u: Tensor) -> Draws:
    """The randomness of ``slots``; ``u`` is that of the whole batch."""
    noise = Noise.keyed(seed, slots, step).fork(TRAINING).fork(_ROWS)
    return Draws(u[slots], noise, torch.full_like(slots, step))

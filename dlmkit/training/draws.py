"""Which rows of the global batch a process takes in which pass, and their randomness."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlmkit.core.objective import Draws, Slots
from dlmkit.errors import RecipeError
from dlmkit.noise import Noise
from dlmkit.types import PerRow

TRAINING = 0x7241
"""The domain that keeps training's noise apart from sampling's and validation's."""

_ROWS, _ORDER, _OFFSET = range(3)


def micro_batches(batch_size: int, micro: int | None, size: int, rank: int) -> list[Slots]:
    """The slots of each forward pass of process ``rank`` of ``size``, at most ``micro`` in each.

    Passes are dealt like cards: pass j of all K takes the slots j, j + K, j + 2K, ..., so that
    each has about the same share of the first slots, and with it the same work. Raises
    RecipeError if some process would get an empty pass.
    """
    rows = math.ceil(batch_size / size)
    passes = math.ceil(rows / (micro or rows))
    if batch_size < size * passes:
        raise RecipeError(
            f"train.batch_size: {batch_size} rows cannot be dealt to {size} processes in "
            f"{passes} passes each; take a multiple of {size * passes}"
        )
    return [
        Slots(batch_size, first=rank + turn, passes=size * passes, earliest=turn)
        for turn in range(0, size * passes, size)
    ]


def dealt(batch_size: int, size: int) -> list[int]:
    """How many rows :func:`micro_batches` gives to each of ``size`` processes."""
    return [len(range(rank, batch_size, size)) for rank in range(size)]


def stratified(seed: int, step: int, size: int, device: torch.device) -> PerRow:
    """u of every slot of a global batch of ``size``: one in each of ``size`` equal intervals.

    u = frac(u_0 + pi(slot) / size) with one offset u_0 and one permutation pi a step, so that
    neighbouring slots are no neighbours in u. Drawn on the host, for ``device``.
    """
    slots = torch.arange(size)
    noise = Noise.keyed(seed, slots, step).fork(TRAINING)
    order = noise.fork(_ORDER).uniform(0, dtype=torch.float64).argsort()
    offset = noise.fork(_OFFSET).uniform(0, dtype=torch.float64)[0]
    u = (offset + order / size).frac().float()
    return u.clamp(max=1.0 - 2.0**-24).to(device, non_blocking=True)


def draws(seed: int, step: int, slots: Slots, u: Tensor, before: int = 0) -> Draws:
    """The randomness of ``slots``; ``u`` is that of the whole batch, on the model's device.

    ``before`` counts the steps that the weights had behind them when this training began.
    """
    index = slots.index()
    noise = Noise.keyed(seed, index, step).fork(TRAINING).fork(_ROWS).on(u.device)
    return Draws(
        u[slots.first :: slots.passes], noise, torch.full_like(index, before + step), slots
    )

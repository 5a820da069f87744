"""Decoders as LLaDA's, Dream's and Fast-dLLM's authors wrote them, at temperature 0.

For comparison with their recorded runs. LLaDA: 2502.09992; Dream: 2508.15487; Fast-dLLM:
2505.22618.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dlmkit.core.importer import Decoded, Taken
from dlmkit.types import Ids, Logits, Mask, PerPosition

Predict = Callable[[Ids], Logits]
"""The logits of each position's own token."""


class Best(NamedTuple):
    """The likeliest token of every position, and what orders positions: the higher, the sooner."""

    tokens: Ids
    confidence: PerPosition


def likeliest(logits: Logits) -> Best:
    """Ordered by the probability of the likeliest token."""
    highest, tokens = logits.double().softmax(dim=-1).max(dim=-1)
    return Best(tokens, highest)


def most_certain(logits: Logits) -> Best:
    """Ordered by the entropy, the lowest first."""
    p = logits.double().softmax(dim=-1)
    return Best(p.argmax(dim=-1), (p * (p + 1e-10).log()).sum(dim=-1))


def spread(count: int, steps: int) -> list[int]:
    """``count`` tokens over ``steps``, as evenly as can be, the first ones taking one more."""
    return [count // steps + (step < count % steps) for step in range(steps)]


class State:
    """The ids that are being decoded, and what was settled so far."""

    def __init__(self, ids: Ids, mask: int) -> None:
        self.ids, self.mask, self.calls = ids.clone(), mask, 0
        self.taken: list[Taken] = []

    @property
    def open(self) -> Mask:
        return self.ids == self.mask

    def settle(self, row: int, best: Best, chosen: Tensor) -> None:
        """Write the likeliest tokens of ``row`` at the positions ``chosen``."""
        places = chosen.sort().values
        self.ids[row, places] = best.tokens[row, places]
        values = (places, best.tokens[row, places], best.confidence[row, places])
        self.taken.append(Taken(self.calls - 1, row, *(value.tolist() for value in values)))

    def done(self) -> Decoded:
        return Decoded(self.ids, self.calls, self.taken)


def top(best: Best, row: int, allowed: Mask, count: int) -> Tensor:
    """The ``count`` best positions of ``row`` among those ``allowed``, the best first."""
    score = best.confidence[row].masked_fill(~allowed[row], -torch.inf)
    return score.topk(min(count, int(allowed[row].sum()))).indices


def confident(best: Best, row: int, places: Tensor, threshold: float) -> Tensor:
    """The first of ``places``, and all others that are at ``threshold`` or above."""
    keep = best.confidence[row, places] >= threshold
    keep[:1] = True
    return places[keep]


def in_blocks(
    predict: Predict, ids: Ids, mask: int, *, first: int, block: int, steps: int
) -> Decoded:
    """LLaDA's: blocks of ``block`` positions from ``first`` on, the likeliest tokens first, as
    many at a step as spreads them over a block's share of ``steps``."""
    state = State(ids, mask)
    blocks = (ids.shape[1] - first) // block
    for end in range(first + block, first + block * blocks + 1, block):
        counts = state.open[:, end - block : end].sum(dim=1).tolist()
        quotas = [spread(count, steps // blocks) for count in counts]
        for step in range(steps // blocks):
            best = likeliest(predict(state.ids))
            state.calls += 1
            allowed = state.open
            allowed[:, end:] = False
            for row, quota in enumerate(quotas):
                state.settle(row, best, top(best, row, allowed, quota[step]))
    return state.done()


def in_blocks_by_threshold(
    predict: Predict, ids: Ids, mask: int, *, first: int, block: int, threshold: float
) -> Decoded:
    """Fast-dLLM's on LLaDA: of a block, every token at ``threshold`` or above, and at least one."""
    state = State(ids, mask)
    for end in range(first + block, ids.shape[1] + 1, block):
        while bool(state.open[:, end - block : end].any()):
            best = likeliest(predict(state.ids))
            state.calls += 1
            allowed = state.open
            allowed[:, end:] = False
            for row in range(len(ids)):
                places = top(best, row, allowed, ids.shape[1])
                state.settle(row, best, confident(best, row, places, threshold))
    return state.done()


def by_time(
    predict: Predict,
    ids: Ids,
    mask: int,
    *,
    order: Callable[[Logits], Best],
    steps: int,
    eps: float,
) -> Decoded:
    """Dream's: at the times 1 ... ``eps``, of the masks of all rows on average the share
    1 - s / t, cut to a whole number, and at the last step all."""
    state = State(ids, mask)
    times = torch.linspace(1.0, eps, steps + 1)
    for step in range(steps):
        best = order(predict(state.ids))
        state.calls += 1
        masks = state.open.sum() / len(ids)
        share = 1.0 - times[step + 1] / times[step]
        count = int(masks * share) if step < steps - 1 else int(masks)
        allowed = state.open
        for row in range(len(ids)):
            state.settle(row, best, top(best, row, allowed, count))
    return state.done()


def by_threshold(predict: Predict, ids: Ids, mask: int, *, steps: int, threshold: float) -> Decoded:
    """Fast-dLLM's on Dream: of an even share of the masks and what earlier steps left over, those
    at ``threshold`` or above, and at least one, until none is left. One row."""
    state = State(ids, mask)
    share, left = int(state.open.sum()) // steps, 0
    while bool(state.open.any()):
        best = likeliest(predict(state.ids))
        state.calls += 1
        places = top(best, 0, state.open, max(1, share + left))
        chosen = confident(best, 0, places, threshold)
        left = len(places) - len(chosen)
        state.settle(0, best, chosen)
    return state.done()


def guided(predict: Predict, unconditional: Callable[[Ids], Ids], scale: float) -> Predict:
    """Logits pushed away from those of the row without its prompt: u + (scale + 1)(c - u)."""

    def both(ids: Ids) -> Logits:
        logits, without = predict(torch.cat((ids, unconditional(ids)))).chunk(2)
        return without + (scale + 1.0) * (logits - without)

    return both

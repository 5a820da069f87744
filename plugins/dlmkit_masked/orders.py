"""Orders."""

from __future__ import annotations

import torch

from dlmkit.core.candidates import CHANCE, Candidates
from dlmkit.core.context import BuildContext
from dlmkit.core.order import Order
from dlmkit.types import PerPosition
from dlmkit_masked import configs


class _Plain(Order):
    def __init__(self, config: configs.Nothing, context: BuildContext) -> None:
        pass


class Random(_Plain):
    """Any position as soon as any other (MDLM, 2406.07524; LLaDA's ``random``)."""

    def scores(self, candidates: Candidates) -> PerPosition:
        return candidates.step.noise.uniform(CHANCE, candidates.ids.shape[1:], torch.float64)


class LeftToRight(_Plain):
    """The first open position of the row: with one token a step, an autoregressive model."""

    def scores(self, candidates: Candidates) -> PerPosition:
        ids = candidates.ids
        place = torch.arange(ids.shape[1], device=ids.device, dtype=torch.float64)
        return -place.expand(ids.shape)


class Confidence(_Plain):
    """By p of the likeliest token (MaskGIT, 2202.04200; LLaDA, 2502.09992).

    LLaDA takes p of the token that was drawn: where the draw is not the likeliest, its texts are
    of another distribution even with one token a step.
    """

    def scores(self, candidates: Candidates) -> PerPosition:
        return candidates.certainty.first


class Margin(_Plain):
    """By the lead of the likeliest token over the runner-up, p1 - p2 (Dream's ``topk_margin``)."""

    def scores(self, candidates: Candidates) -> PerPosition:
        first, second = candidates.certainty[1:3]
        # p1 - p2 as 1 - (1 - p1) - p2, negated and on a log scale: certain positions stay apart
        return -torch.logaddexp(torch.expm1(first).neg().log(), second)


class Entropy(_Plain):
    """By the entropy, the lowest first (Dream, 2508.15487)."""

    def scores(self, candidates: Candidates) -> PerPosition:
        return -candidates.certainty.entropy

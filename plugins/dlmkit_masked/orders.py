"""Orders."""

from __future__ import annotations

import torch

from dlmkit.core.candidates import CHANCE, Candidates
from dlmkit.core.context import BuildContext
from dlmkit.core.order import Order
from dlmkit.errors import RecipeError
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


class ByConfidence(_Plain):
    """By p of the likeliest token (MaskGIT, 2202.04200; LLaDA, 2502.09992).

    LLaDA takes p of the token that was drawn: where the draw is not the likeliest, its texts are
    of another distribution even with one token a step.
    """

    def scores(self, candidates: Candidates) -> PerPosition:
        return candidates.certainty.first


class ByMargin(_Plain):
    """By the lead of the likeliest token over the runner-up, p1 - p2 (Dream's ``topk_margin``)."""

    def scores(self, candidates: Candidates) -> PerPosition:
        first, second = candidates.certainty[1:3]
        # p1 - p2 as 1 - (1 - p1) - p2, negated and on a log scale: certain positions stay apart
        return -torch.logaddexp(torch.expm1(first).neg().log(), second)


class ByEntropy(_Plain):
    """By the entropy, the lowest first (Dream, 2508.15487)."""

    def scores(self, candidates: Candidates) -> PerPosition:
        return -candidates.certainty.entropy


class Corpus(Order):
    """By -p log f of the likeliest token, f its share of the training text, and by place
    (PC-Sampler, 2508.13021): what is likely everywhere says little.

    Here -log f has an upper bound, where PC-Sampler bounds the product, which makes equals of all
    that are sure of a rare token. Tokens are counted once more than they occur (our choice).
    """

    def __init__(self, config: configs.Corpus, context: BuildContext) -> None:
        data = context.parts.get("data") if config.data is None else None
        if config.data is not None:
            data = context.build("data", config.data)
        if data is None:
            raise RecipeError(
                "order masked:corpus counts the tokens of a text, and a model that is loaded has "
                "read none: name it, order: {use: masked:corpus, with: {data: ...}}, as the "
                "recipe's own key data does"
            )
        size = context.part("space").vocab_size
        counts = torch.ones(size, dtype=torch.float64)
        for batch in data.excerpt(config.tokens):
            counts += batch.ids[batch.attend].bincount(minlength=size)[:size]
        rare = (counts.sum() / counts).log().clamp(max=config.most)
        self.rare, self.decay = rare.log().to(context.device), config.decay

    def scores(self, candidates: Candidates) -> PerPosition:
        likeliest, first = candidates.certainty[:2]
        # in logs, whose order is the same: 1 - 1e-9 and 1 - 1e-12 stay apart
        place = torch.arange(first.shape[1], device=first.device)
        return first.double() + self.rare[likeliest] - self.decay * place

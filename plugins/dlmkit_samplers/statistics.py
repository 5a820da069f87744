"""Statistics of the predicted distribution over tokens.

With a tied head, logits l_v = q . e_v and x0 = sum_v p_v e_v, so sum_v p_v l_v = q . x0 and all
three follow from vectors of the embedding's size, exactly. Other heads take the plain form over
the vocabulary. The identities lose digits to cancellation, but for the Jeffreys divergence,
whose every factor is a difference.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.exits import Statistic
from dlmkit.core.tokens import IMPOSSIBLE
from dlmkit.kernels.vocabulary import Top
from dlmkit.types import Mask, PerPosition, PerRow


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=-1)


def _log_probabilities(space: EmbeddingSpace, prediction: Prediction) -> Tensor:
    return space.logits(prediction.query).log_softmax(dim=-1)


def _expected(weights: Tensor, values: Tensor) -> Tensor:
    """sum_v w_v l_v, where impossible tokens (w = 0, l = -inf) count as 0."""
    return torch.where(weights == 0, 0.0, weights * values).sum(dim=-1)


class Entropy(Statistic):
    """H = lse - q . x0, in nats."""

    floor: ClassVar = {torch.float64: 3e-13, torch.float32: 1e-5, torch.bfloat16: 2e-2}

    def per_position(
        self, space: EmbeddingSpace, now: Prediction, before: Prediction
    ) -> PerPosition:
        if space.tied:
            return now.lse - _dot(now.query, now.x0_mean)
        log_p = _log_probabilities(space, now)
        return -_expected(log_p.exp(), log_p)


class KullbackLeibler(Statistic):
    """KL(p_now || p_before) = (q_now - q_before) . x0_now - lse_now + lse_before, in nats."""

    needs_before = True
    floor: ClassVar = {torch.float64: 8e-15, torch.float32: 3e-6, torch.bfloat16: 9e-6}

    def per_position(
        self, space: EmbeddingSpace, now: Prediction, before: Prediction
    ) -> PerPosition:
        if space.tied:
            return _dot(now.query - before.query, now.x0_mean) - (now.lse - before.lse)
        log_p, log_r = _log_probabilities(space, now), _log_probabilities(space, before)
        return _expected(log_p.exp(), log_p - log_r)


class Jeffreys(Statistic):
    """KL(p || r) + KL(r || p) = (q_now - q_before) . (x0_now - x0_before), in nats."""

    needs_before = True
    floor: ClassVar = {torch.float64: 2e-17, torch.float32: 2e-9, torch.bfloat16: 8e-6}

    def per_position(
        self, space: EmbeddingSpace, now: Prediction, before: Prediction
    ) -> PerPosition:
        if space.tied:
            return _dot(now.query - before.query, now.x0_mean - before.x0_mean)
        log_p, log_r = _log_probabilities(space, now), _log_probabilities(space, before)
        return _expected(log_p.exp() - log_r.exp(), log_p - log_r)


def _top(space: EmbeddingSpace, prediction: Prediction) -> Top:
    """The likeliest tokens: the sampling loop's, or found here."""
    return space.top(prediction.query) if prediction.top is None else prediction.top


class Switches(Statistic):
    """How many positions changed their likeliest token since the step before (a curve
    of 2305.10818, by its reviews).

    Near the end of sampling rounding changed none, in no dtype: it has no floor.
    """

    needs_before = needs_top = True

    def per_position(
        self, space: EmbeddingSpace, now: Prediction, before: Prediction
    ) -> PerPosition:
        return (_top(space, now).ids != _top(space, before).ids).to(now.lse.dtype)

    def of_row(self, values: PerPosition, generated: Mask) -> PerRow:
        return torch.where(generated, values, 0.0).sum(dim=1)


class Margin(Statistic):
    """p of the likeliest token minus p of the runner-up: near 1 where the model is certain.

    The floor is that of its distance to 1.
    """

    needs_top = True
    settles_at: ClassVar = 1.0
    floor: ClassVar = {torch.float64: 7e-16, torch.float32: 7e-7, torch.bfloat16: 9e-3}

    def per_position(
        self, space: EmbeddingSpace, now: Prediction, before: Prediction
    ) -> PerPosition:
        top = _top(space, now)
        return (top.first - now.lse).exp() - (top.second - now.lse).exp()


class Gap(Statistic):
    """log p of the likeliest token minus log p of the runner-up: the gap of their logits, in nats.

    A row's value is the mean over positions that are not certain: a written token of a masked
    model has a gap of a hundred nats, whatever the rest is like. A row of certain ones is infinite.
    """

    needs_top = True
    settles_at: ClassVar = -IMPOSSIBLE

    def per_position(
        self, space: EmbeddingSpace, now: Prediction, before: Prediction
    ) -> PerPosition:
        top = _top(space, now)
        return (top.first - top.second).clamp(max=-IMPOSSIBLE)

    def of_row(self, values: PerPosition, generated: Mask) -> PerRow:
        still_open = generated & (values < 0.99 * -IMPOSSIBLE)
        mean = super().of_row(values, still_open)
        return torch.where(still_open.any(dim=1), mean, torch.inf)

"""What a step of a masked model chooses from: its open positions, and how sure the model is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dlmkit.core.denoise import Prediction
from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.sampler import Step
from dlmkit.core.tokens import in_blocks
from dlmkit.kernels import vocabulary
from dlmkit.kernels.vocabulary import Certainty
from dlmkit.noise import Noise
from dlmkit.types import Ids, Index, Mask, PerPosition

CHANCE, TOKEN = range(2)
"""Draws of a step's noise: one number per position for who is written, and those of the tokens."""
TIES, BACK = range(2)
"""Domains of a step's noise: what breaks ties, and what goes back. Others are free."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The positions of one step and what the model believes of them, all row-first.

    ``masked`` are the positions still to be written, given ones and padding left out, and ``open``
    those of them that may be written at this step: all, or those of the window. ``settled`` are
    the others that were written; ``ids`` holds their tokens and ``written`` the log-probability
    that each had when it was drawn. Of the ``steps`` that the row has for its open positions,
    ``left`` are to come, this one included.

    ``prediction`` is that of the undivided logits: no temperature has touched it, and no token has
    been drawn. What depends on a drawn token would change the distribution of the text.
    """

    space: EmbeddingSpace
    prediction: Prediction
    ids: Ids
    masked: Mask
    open: Mask
    settled: Mask
    written: PerPosition
    step: Step
    left: Index
    steps: Index

    @cached_property
    def certainty(self) -> Certainty:
        """Of every open position, (B, L): the likeliest token, its log-probability and the
        runner-up's, and the entropy in nats. Elsewhere as of nothing: minus infinity and 0."""
        space, query = self.space, self.prediction.query
        parts = [
            (at, vocabulary.certainty(space.logits(query[at][None])[0]))
            for at in in_blocks(self.open, space.vocab_size)
        ]
        fresh = self.prediction.lse
        never = torch.full_like(fresh, -torch.inf)
        whole = Certainty(torch.zeros_like(self.ids), never, never.clone(), torch.zeros_like(fresh))
        for at, part in parts:
            for all_, values in zip(whole, part, strict=True):
                all_[at] = values.to(all_.dtype)
        return whole

    @property
    def progress(self) -> tuple[Tensor, Tensor]:
        """The share of its steps that a row has done before this one and after it, float64[B]."""
        steps = self.steps.double()
        return (self.steps - self.left) / steps, (self.steps - self.left + 1) / steps


def ranks(scores: PerPosition, still_open: Mask, noise: Noise) -> Ids:
    """The rank of every position in its row, from 0: those that are ``still_open`` come first, by
    falling ``scores``.

    Equal scores go by keyed noise, not from left to right: a model that is certain of many
    positions would be read as an autoregressive one. What is not a number comes last.
    """
    tie = noise.fork(TIES).uniform(0, scores.shape[1:], torch.float64).argsort(dim=1)
    lowest = torch.finfo(scores.dtype).min
    scores = scores.nan_to_num(nan=lowest, posinf=None, neginf=lowest)
    scores = torch.where(still_open, scores, -torch.inf).gather(1, tie)
    order = tie.gather(1, scores.argsort(dim=1, descending=True, stable=True))
    return inverse(order)


def inverse(order: Ids) -> Ids:
    """The permutation that undoes ``order``, row by row: of ranks, the positions by rank."""
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place)


def by_rank(values: Tensor, rank: Ids) -> Tensor:
    """``values`` (B, L) with the first position of each row first."""
    return values.gather(1, inverse(rank))


def first(rank: Ids, count: Index, still_open: Mask) -> Mask:
    """The ``count`` first of the ``still_open`` positions of each row, and one if it has any."""
    return (rank < count.clamp(min=1)[:, None]) & still_open

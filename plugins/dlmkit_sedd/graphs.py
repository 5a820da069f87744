"""SEDD's two graphs: where a token may go, and what its scores say of it (2310.16834, section 3.3).

Of a position, r is what the other positions say of its token and m the share that is lost. A score
s_y is q(y) / q(x) at one level, all other positions as they are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlmkit import rows
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import (
    IMPOSSIBLE,
    DiscreteSpace,
    TokenSpace,
    masked_share,
    score_entropy,
    uniformity,
)
from dlmkit.types import Ids, Logits, PerPosition


def left_of(level: Level) -> Tensor:
    """The share of tokens that is not lost, which may be too small to be told from 1 less it."""
    left: Tensor = level.alpha / (level.alpha + level.sigma)
    return left


class Absorbing:
    """Tokens become masks. Of a mask s_y is r_y (1 - m) / m; nothing else goes anywhere.

    The output is log s_y m / (1 - m) + log V: SEDD's scaling. It need not sum to 1, nor need r. A
    mask that has a logit is no token.
    """

    def __init__(self, space: TokenSpace) -> None:
        self.mask = space.corruption.mask
        self.beside = self.mask < space.vocab_size
        self.size = space.vocab_size - self.beside

    def others_say(self, output: Logits, x: Ids, level: Level) -> Logits:
        """log r of every token."""
        log_r = output - math.log(self.size)
        if self.beside:
            log_r = log_r.index_fill(-1, torch.tensor(self.mask, device=log_r.device), IMPOSSIBLE)
        return log_r

    def entropy(self, output: Logits, x: Ids, ids: Ids, level: Level) -> PerPosition:
        """Equation 5 of every position, of which ``ids`` is the token, per unit of total noise."""
        masked = x == self.mask
        log_r = torch.where(masked[..., None], self.others_say(output, x, level), 0.0)
        right = log_r.gather(-1, ids[..., None])[..., 0]
        nats = (log_r.exp().sum(dim=-1) - 1.0 - right) / level.ratio.to(right.dtype)[:, None]
        return torch.where(masked, nats, 0.0)

    def rest(self, share: Tensor) -> Tensor:
        """KL(q(x | x0) || prior) where a ``share`` is lost; the prior's rest is any token."""
        return (1.0 - share) * math.log(self.size)

    def log_rates(self, log_r: Logits, x: Ids, here: Level, there: Level) -> Logits:
        """log of q(y) at ``there`` over q(x) at ``here``, times the rate of x from y."""
        left = left_of(there.like(log_r))
        # what is left at the end is drawn, as by SEDD's denoiser
        log_r = rows.where(there.sigma == 0, log_r.log_softmax(dim=-1), log_r)
        log_rate = log_r + (left / masked_share(here.like(log_r))).log()
        return log_rate.masked_fill((x != self.mask)[..., None], -torch.inf)


class Uniform:
    """Tokens become any others. q(y) is (1 - m) r_y + m / V. The output is log s_y."""

    def __init__(self, space: DiscreteSpace) -> None:
        self.size = space.vocab_size

    def others_say(self, output: Logits, x: Ids, level: Level) -> Logits:
        """log r; scores that leave a token less than m / V are taken for no chance of it."""
        q = output.double().scatter(-1, x[..., None], 0.0).softmax(dim=-1)
        r = (q - masked_share(level.like(q)) / self.size).clamp(min=1e-12)
        return r.log().log_softmax(dim=-1).to(output.dtype)

    def entropy(self, output: Logits, x: Ids, ids: Ids, level: Level) -> PerPosition:
        """Equation 5 of every position, of which ``ids`` is the token, per unit of total noise."""
        spread = torch.log1p(self.size / level.ratio.to(output.dtype))[:, None]
        log_score = output.scatter(-1, x[..., None], 0.0)
        return score_entropy(log_score, x, ids, spread) / self.size

    def rest(self, share: Tensor) -> Tensor:
        """KL(q(x | x0) || prior) where a ``share`` is lost."""
        return uniformity(share, self.size)

    def log_rates(self, log_r: Logits, x: Ids, here: Level, there: Level) -> Logits:
        """log of q(y) at ``there`` over q(x) at ``here``, times the rate of x from y."""
        r = log_r.softmax(dim=-1)
        q_here, q_there = (self._noised(r, level) for level in (here, there))
        log_rate = (q_there / (self.size * q_here.gather(-1, x[..., None]))).log()
        return log_rate.scatter(-1, x[..., None], -torch.inf)

    def _noised(self, r: Tensor, level: Level) -> Tensor:
        share = masked_share(level.like(r))
        return (1.0 - share) * r + share / self.size


def graph_of(space: DiscreteSpace) -> Absorbing | Uniform:
    """That of the space's noise."""
    return Absorbing(space) if isinstance(space, TokenSpace) else Uniform(space)

"""Spaces whose x is the token id itself, and of them the one whose tokens are masked."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlmkit import rows
from dlmkit.core.context import BuildContext
from dlmkit.core.embedding import Corruption, EmbeddingSpace
from dlmkit.core.options import Tokens
from dlmkit.core.schedule import Level, NoiseSchedule
from dlmkit.noise import Noise
from dlmkit.types import Embedded, Ids, Logits, Mask, PerPosition, Probabilities, Query

NUMBERS = {"cpu": 1 << 18}
"""Numbers of a block of positions, few enough for the second-level cache of a core."""
WIDE_NUMBERS = 1 << 26
"""The same on accelerators, where a launch costs more than a miss."""

IMPOSSIBLE = -104.0
"""The log-probability of what cannot be: the highest whose exponential is 0 in single precision.

It is finite, so that divergences between two steps are, and of the size of other log-probabilities:
a token that is uncovered moves a symmetric divergence by about a hundred nats, not a million.
"""


def positions_at_once(device: torch.device, vocab_size: int) -> int:
    """Positions of a block in which each takes ``vocab_size`` numbers."""
    return max(1, NUMBERS.get(device.type, WIDE_NUMBERS) // vocab_size)


def in_blocks(mask: Mask, vocab_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """:func:`~dlmkit.rows.places` of ``mask``, a block at a time: draws and sums over the
    vocabulary take several numbers for each of its tokens."""
    block = positions_at_once(mask.device, vocab_size)
    return zip(*(index.split(block) for index in rows.places(mask)), strict=True)


def masked_share(level: Level) -> Tensor:
    """The chance that a token is masked, sigma / (alpha + sigma): of the level's ratio alone."""
    share: Tensor = level.sigma / (level.alpha + level.sigma)
    return share


def masking_rate(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """m'(t) / m(t) of the masked share m, by differentiation: MDLM's weight -alpha' / (1 - alpha)
    (2406.07524, equation 10)."""
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        log_share = masked_share(schedule.level(t)).log()
        (rate,) = torch.autograd.grad(log_share.sum(), t)
    return rate


def loss_rate(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """m'(t) / (1 - m(t)): the rate at which tokens that are left are lost."""
    return masking_rate(schedule, t) * schedule.level(t).ratio


def categorical(log_p: Float[Tensor, "*shape V"], u: Float[Tensor, "*shape V"]) -> Tensor:
    """A draw from ``log_p`` (unnormalised) by uniform ``u``: the Gumbel-max trick, in float64.

    In single precision u stops at 1 - 2^-24, which cuts the Gumbels off near 16.6, so that rare
    tokens never win: an unasked-for temperature below 1 (2409.02908, section 4).
    """
    gumbel = u.double().log().neg_().log_().neg_()
    return gumbel.add_(log_p).argmax(dim=-1)


def score_entropy(log_score: Logits, x: Ids, ids: Ids, spread: Tensor) -> PerPosition:
    """Sum over y other than x of s_y - r_y log s_y + r_y (log r_y - 1), SEDD's equation 5.

    ``log_score`` is log s, what a model says of q(y) / q(x), of which x's own entry is 0. r is
    that of q(. | ``ids``): exp(``spread``), (B, 1), from any other token to ``ids``,
    exp(-``spread``) from it to any other, 1 between others.
    """
    size = log_score.shape[-1]
    right = log_score.gather(-1, ids[..., None])[..., 0]
    scores, logs = log_score.exp().sum(dim=-1) - 1.0, log_score.sum(dim=-1)
    up, down = spread.exp(), (-spread).exp()
    others = logs - right + (size - 2)
    lost = scores - others - up * (right + 1.0 - spread)
    kept = scores - down * (logs + (size - 1) * (1.0 + spread))
    return torch.where(x == ids, kept, lost)


def uniformity(share: Tensor, vocab_size: int) -> Tensor:
    """KL(q(x | x0) || uniform), nats per position; a ``share`` of tokens became any others."""
    right, other = 1.0 - share + share / vocab_size, share / vocab_size
    above: Tensor = (vocab_size - 1) * other * (vocab_size * other).log()
    return right * (vocab_size * right).log() + above


class DiscreteSpace(EmbeddingSpace):
    """x0 is the id itself, (B, L), and a query holds the logits of the V tokens.

    Left to a subclass: ``vocab_size``, ``dim``, ``query_dim``, ``table``, what the network reads of
    a token, and a ``corruption`` whose
    :meth:`~dlmkit.core.embedding.Corruption.input` is what the network reads of ids.
    """

    table: nn.Embedding
    drawn = True

    def embed(self, ids: Ids) -> Tensor:
        return ids

    def logits(self, query: Query) -> Logits:
        return query

    def expect(self, probabilities: Probabilities) -> Tensor:
        """The likeliest token: ids have no mean."""
        return probabilities.argmax(dim=-1)

    def read(self, query: Query) -> tuple[Tensor, PerPosition]:
        """The likeliest token and the log-normaliser, with no second tensor of V numbers each."""
        if torch.is_grad_enabled():
            return super().read(query)
        size = positions_at_once(query.device, self.vocab_size)
        likeliest, lse = zip(*map(_read, query.flatten(0, 1).split(size)), strict=True)
        return torch.cat(likeliest).view(query.shape[:2]), torch.cat(lse).view(query.shape[:2])

    def draw(self, query: Query, wanted: Mask, noise: Noise, draw: int) -> Ids:
        """A token of the prediction at every ``wanted`` position, by draw ``draw`` of ``noise``.

        Drawn there alone, in float64 (:func:`categorical`), and 0 elsewhere.
        """
        tokens = torch.zeros_like(wanted, dtype=torch.int64)
        for at in in_blocks(wanted, self.vocab_size):
            logits = self.logits(query[at][None])[0]
            u = noise.uniform(draw, (query.shape[1], self.vocab_size), torch.float64, at)
            tokens[at] = categorical(logits, u)
        return tokens


class MaskCorruption(Corruption):
    """x is the token's id or, with the level's masked share as its chance, ``mask``.

    ``table`` holds what the network reads of a token, and of the mask (its last row by default).
    """

    by_position = True

    def __init__(self, table: nn.Embedding, mask: int | None = None) -> None:
        self.table = table
        self.mask = table.num_embeddings - 1 if mask is None else mask

    def corrupt(self, x0: Tensor, level: Level, noise: Noise) -> Tensor:
        u = noise.uniform(0, x0.shape[1:])
        share = masked_share(level.like(u))
        return torch.where(u < share, self.mask, x0)

    def prior(self, like: Tensor, level: Level, noise: Noise) -> Tensor:
        return torch.full_like(like, self.mask)

    def input(self, x: Tensor, level: Level) -> Embedded:
        read: Embedded = self.table(x)
        return read

    @property
    def unknown(self) -> Tensor:
        return self.table.weight[self.mask]

    def log_likelihood(self, points: Tensor, x: Tensor, level: Level) -> Logits:
        """A mask says nothing of the token, anything else everything."""
        dtype = self.table.weight.dtype
        impossible = (x != self.mask)[..., None] & (x[..., None] != points)
        return torch.zeros(impossible.shape, dtype=dtype, device=x.device).masked_fill(
            impossible, -torch.inf
        )


class TokenSpace(DiscreteSpace):
    """x0 is the id itself, and a query holds the logits of the V tokens, never of the mask.

    That the mask is not among them is the first half of MDLM's SUBS parameterisation (section
    3.2.3); the denoiser does the second. With ``size`` the mask is one of V rows, of which the
    network gives every one a logit; then the denoiser does both.
    """

    corruption: MaskCorruption

    def __init__(self, config: Tokens, context: BuildContext) -> None:
        super().__init__()
        self.vocab_size = self.query_dim = context.rows(config.size)
        self.dim = config.dim
        self.table = nn.Embedding(config.size or context.vocab_size + 1, config.dim)
        self.corruption = MaskCorruption(self.table, config.mask)

    def settled(self, x: Tensor) -> Mask:
        return x != self.corruption.mask

    def decode(self, x: Tensor, query: Query) -> Ids:
        """What is uncovered stays; a mask becomes the likeliest token."""
        return torch.where(x == self.corruption.mask, query.argmax(dim=-1), x)


def _read(logits: Float[Tensor, "M V"]) -> tuple[Int[Tensor, "M"], Float[Tensor, "M"]]:
    highest, likeliest = logits.max(dim=-1)
    # softmax's own exp is ten times as fast as torch.exp on logits that are far below
    share = logits.softmax(dim=-1).gather(-1, likeliest[:, None])[:, 0]
    return likeliest, highest - share.log()

"""Exact Bayes denoisers that know only n-gram statistics: what a trained model must beat.

All of them see the same noisy x as the model, in the model's own embeddings. They need a space
in which every token is one point and a corruption whose likelihood is known.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dlmkit.core.embedding import EmbeddingSpace
from dlmkit.core.schedule import Level
from dlmkit.types import Ids, Logits


def log_likelihood(space: EmbeddingSpace, x: Tensor, level: Level) -> Logits | None:
    """log p(x | token) of every token, up to a constant of the position; None if not known."""
    vocabulary = torch.arange(space.vocab_size, device=x.device)
    return space.corruption.log_likelihood(space.embed(vocabulary[None])[0], x, level)


def context_free(likelihood: Logits, unigram: Float[Tensor, "V"]) -> Logits:
    """log p(token | x at its own position), the prior being ``unigram`` (probabilities)."""
    return (likelihood + unigram.log()).log_softmax(dim=-1)


def bigram(
    likelihood: Logits, unigram: Float[Tensor, "V"], transition: Float[Tensor, "V V"]
) -> Logits:
    """log p(token | the whole row's x) for a stationary Markov chain, by forward-backward.

    ``transition[a, b]`` = p(b | a); the first token is drawn from ``unigram``. Messages are
    normalised at every position, so nothing under- or overflows.
    """
    evidence = _evidence(likelihood)
    forward = _forward(evidence, unigram, transition)
    posterior, message = [forward[-1]], torch.ones_like(forward[-1])
    for position in range(len(forward) - 2, -1, -1):
        message = (message * evidence[:, position + 1]) @ transition.T
        message = message / message.sum(dim=-1, keepdim=True).clamp(min=_tiny(message))
        posterior.append(forward[position] * message)
    return _log_shares(torch.stack(posterior[::-1], dim=1))


def bigram_completions(
    likelihood: Logits,
    unigram: Float[Tensor, "V"],
    transition: Float[Tensor, "V V"],
    uniform: Float[Tensor, "B L"],
) -> Ids:
    """A whole row of tokens drawn from each posterior of :func:`bigram`.

    Tokens are drawn from the last to the first, each given the one after it, by inverting its
    distribution at ``uniform`` in [0, 1).
    """
    forward = _forward(_evidence(likelihood), unigram, transition)
    drawn = [_invert(forward[-1], uniform[:, -1])]
    for position in range(len(forward) - 2, -1, -1):
        weights = forward[position] * transition[:, drawn[-1]].T
        drawn.append(_invert(weights, uniform[:, position]))
    return torch.stack(drawn[::-1], dim=1)


def _forward(evidence: Tensor, unigram: Tensor, transition: Tensor) -> list[Float[Tensor, "B V"]]:
    """p(token i | x up to i) of every position."""
    forward, message = [], unigram.expand_as(evidence[:, 0])
    for position in range(evidence.shape[1]):
        joint = _normalised(message * evidence[:, position], (1,))
        forward.append(joint)
        message = joint @ transition
    return forward


def trigram(
    likelihood: Logits,
    unigram: Float[Tensor, "V"],
    transition: Float[Tensor, "V V"],
    second: Float[Tensor, "V V V"],
) -> Logits:
    """log p(token | the whole row's x) for a chain of order 2, by forward-backward over pairs.

    ``second[a, b, c]`` = p(c | a, b); the first two tokens are drawn as :func:`bigram` draws them.
    A row costs 2 L V^3 products, and L V^2 numbers of memory: pass few rows at a time.
    """
    if likelihood.shape[1] == 1:
        return context_free(likelihood, unigram)
    evidence = _evidence(likelihood)
    pairs = _filtered(evidence, unigram, transition, second)
    later = second.permute(1, 2, 0).contiguous()  # [b, c, a]
    message, posterior = torch.ones_like(pairs[-1]), [pairs[-1].sum(dim=0)]
    for position in range(len(pairs) - 1, 0, -1):
        seen = (message * evidence[:, position + 1]).contiguous()  # [b, row, c]
        message = torch.bmm(seen, later).permute(2, 1, 0)
        message = message / message.amax(dim=(0, 2), keepdim=True).clamp(min=_tiny(message))
        posterior.append((pairs[position - 1] * message).sum(dim=0))
    posterior.append((pairs[0] * message).sum(dim=2).T)
    return _log_shares(torch.stack(posterior[::-1], dim=1))


def trigram_completions(
    likelihood: Logits,
    unigram: Float[Tensor, "V"],
    transition: Float[Tensor, "V V"],
    second: Float[Tensor, "V V V"],
    uniform: Float[Tensor, "B L"],
) -> Ids:
    """A whole row of tokens drawn from each posterior of :func:`trigram`, L at least 2.

    Tokens are drawn from the last to the first, each given those after it, by inverting its
    distribution at ``uniform`` in [0, 1).
    """
    evidence = _evidence(likelihood)
    pairs = _filtered(evidence, unigram, transition, second)
    rows = torch.arange(len(evidence), device=evidence.device)
    size = evidence.shape[-1]
    last = _invert(pairs[-1].permute(1, 0, 2).flatten(1), uniform[:, -1])
    drawn = [last % size, last // size]
    for position in range(len(pairs) - 2, -1, -1):
        after, here = drawn[-2], drawn[-1]
        weights = pairs[position][:, rows, here] * second[:, here, after]
        drawn.append(_invert(weights.T, uniform[:, position]))
    return torch.stack(drawn[::-1], dim=1)


def _filtered(
    evidence: Tensor, unigram: Tensor, transition: Tensor, second: Tensor
) -> list[Float[Tensor, "V B V"]]:
    """p(token i - 1 = a, token i = b | x up to i) as [a, row, b], for i = 1 to L - 1."""
    first = _normalised(unigram * evidence[:, 0], (1,))
    pairs = [_normalised(first.T[..., None] * transition[:, None] * evidence[:, 1], (0, 2))]
    earlier = second.permute(1, 0, 2).contiguous()  # [b, a, c]
    for position in range(2, evidence.shape[1]):
        message = torch.bmm(pairs[-1].permute(2, 1, 0).contiguous(), earlier)
        pairs.append(_normalised(message * evidence[:, position], (0, 2)))
    return pairs


def _normalised(x: Tensor, over: tuple[int, ...]) -> Tensor:
    return x / x.sum(dim=over, keepdim=True).clamp(min=_tiny(x))


def _invert(weights: Float[Tensor, "B K"], uniform: Float[Tensor, "B"]) -> Tensor:
    """The index at which the share of ``weights`` up to it first exceeds ``uniform``."""
    shares = weights.double().cumsum(dim=1)
    wanted = (uniform.double() * shares[:, -1])[:, None]
    index = torch.searchsorted(shares.contiguous(), wanted, right=True)[:, 0]
    return index.clamp(max=weights.shape[1] - 1)


def _evidence(likelihood: Logits) -> Tensor:
    """p(x | token), of the likeliest token 1."""
    return (likelihood - likelihood.amax(dim=-1, keepdim=True)).exp()


def _log_shares(weights: Tensor) -> Logits:
    """The log of each weight's share of its position."""
    total = weights.sum(dim=-1, keepdim=True).clamp(min=_tiny(weights))
    return (weights / total).clamp(min=_tiny(weights)).log()


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny

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
from dlmkit.types import Logits


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
    evidence = (likelihood - likelihood.amax(dim=-1, keepdim=True)).exp()
    length = evidence.shape[1]
    forward, message = [], unigram.expand_as(evidence[:, 0])
    for position in range(length):
        joint = message * evidence[:, position]
        joint = joint / joint.sum(dim=-1, keepdim=True).clamp(min=_tiny(joint))
        forward.append(joint)
        message = joint @ transition
    posterior, message = [forward[-1]], torch.ones_like(forward[-1])
    for position in range(length - 2, -1, -1):
        message = (message * evidence[:, position + 1]) @ transition.T
        message = message / message.sum(dim=-1, keepdim=True).clamp(min=_tiny(message))
        posterior.append(forward[position] * message)
    stacked = torch.stack(posterior[::-1], dim=1)
    total = stacked.sum(dim=-1, keepdim=True).clamp(min=_tiny(stacked))
    return (stacked / total).clamp(min=_tiny(stacked)).log()


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny

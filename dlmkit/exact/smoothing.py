"""Counts of three tokens made probabilities: how much to trust them is read off the counts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_ROUNDS = 200


def interpolated(
    triples: Float[Tensor, "V V V"], pairs: Float[Tensor, "V V"]
) -> Float[Tensor, "V V V"]:
    """p(c | a, b) = w n(a, b, c) / n(a, b) + (1 - w) p(c | b), from counts; float64.

    ``pairs`` are counts that leave no pair out (a floor added, say); n(a, b) is the sum of
    ``triples``. Jelinek and Mercer's interpolation: w depends on n(a, b) alone, one for each power
    of two, and is what makes every counted token likeliest when its own occurrence is left out of
    both estimates: held-out estimation that holds out one token at a time.
    """
    context = triples.sum(dim=-1, keepdim=True)
    lower = pairs / pairs.sum(dim=-1, keepdim=True)
    bucket = context[..., 0].clamp(min=1.0).log2().long()
    a, b, c = triples.nonzero(as_tuple=True)
    count = triples[a, b, c]
    others = (context[a, b, 0] - 1.0).clamp(min=1.0)
    high = (count - 1.0) / others
    low = ((pairs[b, c] - 1.0) / (pairs.sum(dim=-1)[b] - 1.0)).clamp(min=1e-12)
    weight = _fit(count, high, low, bucket[a, b])[bucket][..., None]
    share = triples / context.clamp(min=1.0)
    return torch.where(context > 0, weight * share + (1.0 - weight) * lower, lower)


def _fit(count: Tensor, high: Tensor, low: Tensor, bucket: Tensor) -> Float[Tensor, "buckets"]:
    """The weight of ``high`` in each bucket that makes the counted tokens likeliest, by EM."""
    size = int(bucket.max()) + 1
    total = torch.zeros(size, dtype=count.dtype).index_add(0, bucket, count)
    weight = torch.full((size,), 0.5, dtype=count.dtype)
    for _ in range(_ROUNDS):
        own = weight[bucket] * high
        share = count * own / (own + (1.0 - weight[bucket]) * low)
        weight = torch.zeros_like(total).index_add(0, bucket, share) / total.clamp(min=1.0)
    return weight

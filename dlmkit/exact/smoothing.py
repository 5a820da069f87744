"""Counts of tokens in a row made probabilities: how much to trust them is read off the counts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_ROUNDS = 200


def interpolated(
    counts: Float[Tensor, "*context V"], shorter: Float[Tensor, "*fewer V"]
) -> Float[Tensor, "*context V"]:
    """p(c | a, b) = w n(a, b, c) / n(a, b) + (1 - w) p(c | b), from counts; float64.

    ``counts`` are of n tokens in a row, for any n of 2 or more, and ``shorter`` those of n - 1,
    which leave none out (a floor added, say); n(a, b) is the sum of ``counts``. Jelinek and
    Mercer's interpolation: w depends on n(a, b) alone, one for each power of two, and is what
    makes every counted token likeliest when its own occurrence is left out of both estimates:
    held-out estimation that holds out one token at a time.
    """
    context, whole = counts.sum(dim=-1, keepdim=True), shorter.sum(dim=-1, keepdim=True)
    lower = shorter / whole
    bucket = context[..., 0].clamp(min=1.0).log2().long()
    seen = counts.nonzero(as_tuple=True)
    before, after = seen[:-1], seen[1:]
    count = counts[seen]
    high = (count - 1.0) / (context[..., 0][before] - 1.0).clamp(min=1.0)
    low = ((shorter[after] - 1.0) / (whole[..., 0][after[:-1]] - 1.0)).clamp(min=1e-12)
    weight = _fit(count, high, low, bucket[before])[bucket][..., None]
    share = counts / context.clamp(min=1.0)
    return torch.where(context > 0, weight * share + (1.0 - weight) * lower, lower)


def _fit(count: Tensor, high: Tensor, low: Tensor, bucket: Tensor) -> Float[Tensor, "buckets"]:
    """The weight of ``high`` in each bucket that makes the counted tokens likeliest, by EM."""
    size = int(bucket.max()) + 1
    total = torch.zeros(size, dtype=count.dtype).index_add(0, bucket, count)
    weight = torch.full((size,), 0.5, dtype=count.dtype)
    for _ in range(_ROUNDS):
        direct = weight[bucket] * high
        share = count * direct / (direct + (1.0 - weight[bucket]) * low)
        weight = torch.zeros_like(total).index_add(0, bucket, share) / total.clamp(min=1.0)
    return weight

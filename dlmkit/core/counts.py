"""Points for tokens by the company they keep: counts of neighbours, and their singular vectors.

Tokens that stand among the same neighbours get points that lie close together, which is what a
model with random embeddings has to find out first.

1. Neighbours are counted, those to the left and to the right apart, so that a token has 2 V
   contexts. One that is k positions away counts 1 / k (Pennington, Socher and Manning 2014).
2. Counts become positive pointwise mutual information, max(0, log p(token, context) /
   (p(token) p(context))) (Church and Hanks 1990; Levy and Goldberg 2014). The contexts'
   frequencies are raised to a power below 1 first, since rare contexts seem to tell too much
   (Levy, Goldberg and Dagan 2015, "context distribution smoothing").
3. A token's point is its row of the first D left singular vectors, each scaled by the square root
   of its singular value (Levy and Goldberg 2014; Levy, Goldberg and Dagan 2015, "eigenvalue
   weighting" of 0.5), by a randomised method (Halko, Martinsson and Tropp 2011).
4. Points are normalised, their mean is taken away, and they are normalised again: what all tokens
   share tells none from another (ours).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dlmkit.core.data import Data
from dlmkit.core.objective import Batch
from dlmkit.core.options import Counts
from dlmkit.errors import DataError

RANDOM_SHARE = 0.15
"""Length of the random part of a row that starts from counts, over that of its point.

Two tokens with the same neighbours, such as two that occur once in the same phrase, would
otherwise be one point. The value is ours: such pairs start at a cosine of about 0.98."""

_PAIRS = 1 << 22  # that are gathered before they are summed: some 100 MB
_ITERATIONS = 10  # of the subspace, which holds twice the vectors that are wanted
_NOTHING = 1e-6  # a point this near to the mean of all says nothing


@torch.no_grad()
def start_from_counts(table: Float[Tensor, "rows D"], data: Data, options: Counts) -> None:
    """Turn the random rows of ``table`` towards the points of their tokens, in place.

    Row v is token v's; rows after the V tokens' (a mask's) stay as they are, and so do those of
    tokens without a point: padding, and what does not occur in the counted text. A row that turns
    keeps the usual length of the random ones, and :data:`RANDOM_SHARE` of its own randomness.

    Raises DataError if no token has a point.
    """
    size = data.tokenizer.vocab_size
    near = neighbours(data.excerpt(options.tokens), size, options.window)
    points = singular_points(information(near, options.smoothing), table.shape[1])
    known = points.any(dim=1)
    if not known.any():
        raise DataError(
            f"{data.describe()}: {options.tokens:,} tokens were counted, and no token has "
            "neighbours that tell it from others, so embeddings cannot start from counts; start "
            "them at random"
        )
    length = table.square().sum(dim=1).mean().sqrt()
    turned = length * points.to(table) + RANDOM_SHARE * table[:size]
    table[:size] = torch.where(known.to(table.device)[:, None], turned, table[:size])


def neighbours(batches: Iterable[Batch], size: int, window: int) -> Float[Tensor, "V V"]:
    """How often token b stands up to ``window`` positions to the right of token a, each time as
    1 / distance: a sparse matrix. Padding counts as nothing. ``size`` is V."""
    total = _summed(torch.empty(2, 0, dtype=torch.int64), torch.empty(0), (size, size))
    pairs: list[Tensor] = []
    for batch in batches:
        for distance in range(1, min(window, batch.ids.shape[1] - 1) + 1):
            real = batch.attend[:, :-distance] & batch.attend[:, distance:]
            left, right = batch.ids[:, :-distance][real], batch.ids[:, distance:][real]
            pairs.append(torch.stack((left, right, torch.full_like(left, distance))))
        if sum(pair.shape[1] for pair in pairs) > _PAIRS:
            total, pairs = _added(total, pairs), []
    return _added(total, pairs)


def _added(total: Tensor, pairs: list[Tensor]) -> Tensor:
    """``total`` and the (left, right, distance) of ``pairs``."""
    if not pairs:
        return total
    left, right, distance = torch.cat(pairs, dim=1)
    more = _summed(torch.stack((left, right)), 1.0 / distance.double(), tuple(total.shape))
    return (total + more).coalesce()


def _summed(
    places: Int[Tensor, "2 n"], values: Float[Tensor, "n"], shape: tuple[int, ...]
) -> Tensor:
    """A sparse matrix of ``values``, those of one place summed."""
    made = torch.sparse_coo_tensor(places, values.double(), shape, check_invariants=False)
    return made.coalesce()


def information(near: Float[Tensor, "V V"], smoothing: float) -> Float[Tensor, "V 2*V"]:
    """Positive pointwise mutual information of tokens and their contexts, sparse.

    ``near`` is what :func:`neighbours` counted. Column b stands for b to the right of the token,
    column V + b for b to its left.
    """
    both = torch.cat((near, near.T), dim=1).coalesce()
    (token, context), count = both.indices(), both.values()
    tokens = torch.sparse.sum(both, dim=1).to_dense()
    contexts = torch.sparse.sum(both, dim=0).to_dense() ** smoothing
    pmi = torch.log(count * contexts.sum() / (tokens[token] * contexts[context]))
    kept = pmi > 0
    return _summed(both.indices()[:, kept], pmi[kept], tuple(both.shape))


def singular_points(matrix: Float[Tensor, "V C"], dim: int) -> Float[Tensor, "V D"]:
    """Left singular vectors times the square roots of their values, normalised, centred and
    normalised again, ``dim`` to a row; zeros for rows of zeros.

    The method is randomised with a fixed seed; other processors and numbers of threads round its
    sums otherwise, so that the last digits may differ.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (matrix.shape[1], min(2 * dim, *matrix.shape))
    basis = torch.randn(shape, generator=generator, dtype=matrix.dtype)
    across = matrix.T.coalesce()
    for _ in range(_ITERATIONS):
        # in row order: of the column order that qr gives, sparse products take nine times as long
        basis = torch.linalg.qr(across @ (matrix @ basis)).Q.contiguous()
    left, values, _ = torch.linalg.svd(matrix @ basis, full_matrices=False)
    left, values = left[:, :dim], values[:dim]
    # a singular vector's sign is the library's choice: the largest component becomes positive
    largest = left.gather(0, left.abs().argmax(dim=0, keepdim=True))
    points = F.normalize(left * largest.sign() * values.sqrt(), dim=1)
    points[torch.sparse.sum(matrix, dim=1).to_dense() == 0] = 0.0
    known = points.any(dim=1)
    points[known] -= points[known].mean(dim=0)
    lengths = points.norm(dim=1, keepdim=True)
    points = torch.where(lengths > _NOTHING, points / lengths, 0.0)
    return F.pad(points, (0, dim - points.shape[1]))

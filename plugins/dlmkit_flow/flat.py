"""FLM (2602.16813): flow matching on one-hot vectors, in the time of its decoding errors."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.denoise import WithoutFeedback
from dlmkit.core.embedding import EmbeddingSpace, GaussianCorruption
from dlmkit.core.objective import Batch, Draws, LossParts, RecipeObjective
from dlmkit.core.options import Dropping
from dlmkit.core.schedule import Level, StraightLine
from dlmkit.core.warp import Warped
from dlmkit.types import Embedded, Ids, Logits, PerRow, Probabilities, Query
from dlmkit_flow import plugin


class ReadOneHot(GaussianCorruption):
    """Noise on one-hot vectors, of which the network reads D channels of ``table`` (V, D)."""

    def __init__(self, table: nn.Embedding, posterior: bool) -> None:
        self.table, self.posterior = table, posterior

    def input(self, x: Tensor, level: Level) -> Embedded:
        """x W over its standard deviation, sqrt(alpha^2 + V sigma^2) where W's entries have one
        of 1; or, by posterior, softmax(alpha x / sigma^2) W."""
        alpha, sigma = level.like(x)
        if self.posterior:
            sharp = alpha / sigma.square().clamp(min=1e-12)
            return (sharp * x).softmax(dim=-1) @ self.table.weight
        return (x @ self.table.weight) * torch.rsqrt(alpha**2 + x.shape[-1] * sigma**2)


class OneHotSpace(EmbeddingSpace):
    """x0 is the token's one-hot vector, (B, L, V); the prediction's mean is its probabilities.

    Logits are a query's products with the rows that the network reads (FLM: a matrix of its own).
    """

    def __init__(self, config: plugin.OneHot, context: BuildContext) -> None:
        super().__init__()
        self.vocab_size, self.dim = context.vocab_size, config.dim
        self.query_dim = config.dim
        self.table = nn.Embedding(context.vocab_size, config.dim)
        self.corruption = ReadOneHot(self.table, config.reads == "posterior")

    def embed(self, ids: Ids) -> Tensor:
        return self.expect(F.one_hot(ids, self.vocab_size).to(self.table.weight.dtype))

    def logits(self, query: Query) -> Logits:
        return query @ self.table.weight.T

    def expect(self, probabilities: Probabilities) -> Tensor:
        return probabilities


def decoding_error(ratio: PerRow, size: int) -> PerRow:
    """P_e: the chance that the largest of ``size`` channels is not the token's, at sigma / alpha.

    1 - E[Phi(z + 1 / ratio)^(size - 1)] over a standard normal z, by Gauss-Hermite quadrature.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    z, weight = torch.from_numpy(nodes), torch.from_numpy(weights / math.sqrt(2.0 * math.pi))
    right: Tensor = (size - 1) * torch.special.log_ndtr(z + 1.0 / ratio.double()[:, None])
    return 1.0 - right.exp() @ weight


class DecodingError(StraightLine, Warped):
    """alpha = 1 - t and sigma = t, and u = V / (V - 1) P_e(t), which is 1 - tau of FLM.

    What lies below a share ``clip`` of u, or above the rest, is left out.
    """

    def __init__(self, config: plugin.DecodingError, context: BuildContext) -> None:
        size = max(2, context.vocab_size)
        t = torch.linspace(0.0, 1.0, 4097, dtype=torch.float64)[1:-1]
        u = size / (size - 1.0) * decoding_error(t / (1.0 - t), size)
        kept = (u > config.clip) & (u < 1.0 - config.clip)
        t, u = t[kept], u[kept]
        super().__init__(float(t[0]), float(t[-1]), t, (u - u[0]) / (u[-1] - u[0]))


class TokenCrossEntropy(RecipeObjective):
    """Cross-entropy of the tokens at noised positions, of all times alike."""

    def __init__(self, config: Dropping, context: BuildContext) -> None:
        super().__init__(context, config)

    def denoise(self) -> WithoutFeedback:
        return WithoutFeedback(self.space, self.network)

    def forward(self, batch: Batch, draws: Draws) -> LossParts:
        noised = self.noised(batch, draws)
        logits = self.space.logits(noised.query()).float()
        entropy = F.cross_entropy(logits.transpose(1, 2), batch.ids, reduction="none")
        return self.loss(entropy, noised)

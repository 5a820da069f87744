"""SSD-LM's simplex (2210.17432, section 3): tokens as almost one-hot logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.embedding import EmbeddingSpace, GaussianCorruption
from dlmkit.core.schedule import Level
from dlmkit.types import Embedded, Ids, Logits, Probabilities, Query
from dlmkit_ssd import configs


class SimplexCorruption(GaussianCorruption):
    """Gaussian noise on logits, of which the network reads the mean of a table's rows.

    SSD-LM's logits are K times ours, and so is its noise, N(0, K^2): K is met in the softmax.
    """

    def __init__(self, table: nn.Embedding, scale: float) -> None:
        self.table = table
        self.scale = scale

    def input(self, x: Tensor, level: Level) -> Embedded:
        return (self.scale * x).softmax(dim=-1) @ self.table.weight


class SimplexSpace(EmbeddingSpace):
    """x0 is +1 at the token and -1 at the others, (B, L, V); the network puts out the logits."""

    drawn = True

    def __init__(self, config: configs.Simplex, context: BuildContext) -> None:
        super().__init__()
        self.vocab_size = self.query_dim = context.vocab_size
        self.dim = config.dim
        self.table = nn.Embedding(context.vocab_size, config.dim)
        self.corruption = SimplexCorruption(self.table, config.scale)

    def embed(self, ids: Ids) -> Tensor:
        return self.expect(F.one_hot(ids, self.vocab_size).to(self.table.weight.dtype))

    def logits(self, query: Query) -> Logits:
        return query

    def expect(self, probabilities: Probabilities) -> Tensor:
        return 2.0 * probabilities - 1.0

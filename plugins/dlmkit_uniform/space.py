"""Token ids that become other tokens, all of them alike: the uniform state of D3PM (2107.03006)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.embedding import Corruption
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import DiscreteSpace, masked_share
from dlmkit.noise import Noise
from dlmkit.types import Embedded, Ids, Logits, Query
from dlmkit_uniform import configs

LOST, OTHER = range(2)


def random_tokens(noise: Noise, draw: int, shape: tuple[int, ...], vocab_size: int) -> Tensor:
    """Uniform token ids, (B, \\*shape)."""
    return (noise.uniform(draw, shape, torch.float64) * vocab_size).long()


class UniformNoise(Corruption):
    """x is the token's id or, with the level's share as its chance, any of the V tokens."""

    by_position = True

    def __init__(self, table: nn.Embedding) -> None:
        self.table = table

    @property
    def vocab_size(self) -> int:
        return self.table.num_embeddings

    def corrupt(self, x0: Tensor, level: Level, noise: Noise) -> Tensor:
        u = noise.uniform(LOST, x0.shape[1:])
        other = random_tokens(noise, OTHER, x0.shape[1:], self.vocab_size)
        return torch.where(u < masked_share(level.like(u)), other, x0)

    def prior(self, like: Tensor, level: Level, noise: Noise) -> Tensor:
        return random_tokens(noise, OTHER, like.shape[1:], self.vocab_size)

    def input(self, x: Tensor, level: Level) -> Embedded:
        read: Embedded = self.table(x)
        return read

    def log_likelihood(self, points: Tensor, x: Tensor, level: Level) -> Logits:
        """log(1 + V alpha / (1 - alpha)) of the token that x is, 0 of the others."""
        same = x[..., None] == points
        share = masked_share(level).to(self.table.weight.dtype)
        said = torch.log1p(self.vocab_size * (1.0 - share) / share)
        return torch.where(same, said.view(-1, 1, 1), 0.0)


class UniformSpace(DiscreteSpace):
    """x0 is the id itself; the network puts out V logits."""

    corruption: UniformNoise

    def __init__(self, config: configs.States, context: BuildContext) -> None:
        super().__init__()
        self.vocab_size = self.query_dim = context.rows(config.size)
        self.dim = config.dim
        self.table = nn.Embedding(self.vocab_size, config.dim)
        self.corruption = UniformNoise(self.table)

    def decode(self, x: Tensor, query: Query) -> Ids:
        """What the last step drew."""
        return x

"""CDCD's score network: a pre-norm transformer over four input streams (section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.layers import Keep, TimeFeatures, keeper, rotate, rotation_table, streams
from dlmkit.core.network import Conditioning, Incremental
from dlmkit.core.schedule import Level
from dlmkit.kernels.attention import Attention, resolve_attention
from dlmkit.types import Embedded, Ids, Mask, Query
from dlmkit_cdcd import configs


class Modulated(nn.Module):
    """Layer norm followed by a scale and a shift that depend on the noise level."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.width = width
        self.modulation = nn.Linear(features, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulation(time).chunk(2, dim=-1)
        return torch.addcmul(shift, F.layer_norm(h, (self.width,)), 1.0 + scale)


class PreNormBlock(nn.Module):
    """Self-attention and feed-forward, each behind a modulated norm."""

    def __init__(self, config: configs.Transformer, attention: Attention) -> None:
        super().__init__()
        width, hidden = config.width, config.width * config.feed_forward
        self.heads = config.heads
        self.attention = attention
        self.norm_1 = Modulated(width, config.time_features)
        self.norm_2 = Modulated(width, config.time_features)
        self.qkv = nn.Linear(width, 3 * width, bias=config.query_bias)
        norm = nn.RMSNorm if config.normalise_queries else nn.Identity
        self.norm_q, self.norm_k = norm(width // self.heads), norm(width // self.heads)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        for residual in (self.out, self.down):
            nn.init.normal_(residual.weight, std=0.02 / math.sqrt(2 * config.blocks))
        nn.init.zeros_(self.down.bias)
        if config.query_bias:
            nn.init.normal_(self.qkv.bias[: 2 * width])
            nn.init.zeros_(self.qkv.bias[2 * width :])

    def forward(
        self, h: Tensor, time: Tensor, rotation: Tensor, attend: Mask, keep: Keep | None = None
    ) -> Tensor:
        qkv = self.qkv(self.norm_1(h, time))
        q, k, v = qkv.view(*h.shape[:2], 3, self.heads, -1).unbind(dim=2)
        q, k = rotate(self.norm_q(q), rotation), rotate(self.norm_k(k), rotation)
        if keep is not None:
            k, v = keep(k, v)
        mixed = self.attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attend)
        h = h + self.out(mixed.transpose(1, 2).reshape(h.shape))
        out: Tensor = h + self.down(F.gelu(self.up(self.norm_2(h, time))))
        return out

    def dense(self) -> tuple[nn.Linear, ...]:
        return self.qkv, self.out, self.up, self.down


class Transformer(Incremental):
    """Reads the four :func:`dlmkit.core.layers.streams`.

    The output starts at zero, so that a fresh model predicts the uniform distribution.
    """

    rotation: Tensor

    def __init__(self, config: configs.Transformer, context: BuildContext) -> None:
        super().__init__()
        space = context.part("space")
        channels = config.width // config.heads
        attention = resolve_attention(context.attention, context.device, context.dtype, channels)
        self.reads_level = config.level
        self.inputs = nn.Linear(3 * space.dim + 1, config.width)
        self.time = TimeFeatures(config.time_features, config.time_bandwidth)
        self.blocks = nn.ModuleList(PreNormBlock(config, attention) for _ in range(config.blocks))
        self.norm = Modulated(config.width, config.time_features)
        self.query = nn.Linear(config.width, space.query_dim, bias=False)
        nn.init.zeros_(self.query.weight)
        rotation = rotation_table(context.length, channels, config.rotary_base)
        self.register_buffer("rotation", rotation, persistent=False)

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        h = self.inputs(streams(x, conditioning, previous))
        time = self.features(level, conditioning)
        for block in self.blocks:
            h = block(h, time, self.rotation, conditioning.attend)
        query: Tensor = self.query(self.norm(h, time))
        return query

    def features(self, level: Level, conditioning: Conditioning) -> Tensor:
        """What the norms are modulated by, (B, 1, time_features)."""
        if not self.reads_level:
            level = Level(*map(torch.ones_like, level))
        features: Tensor = self.time(level)
        return features

    def memory(self, count: int, length: int) -> Tensor:
        first = self.blocks[0]
        assert isinstance(first, PreNormBlock)
        width, heads = self.query.in_features, first.heads
        shape = (count, len(self.blocks), 2, length, heads, width // heads)
        return self.query.weight.new_zeros(shape)

    def extend(
        self, x: Embedded, conditioning: Conditioning, positions: Ids, memory: Tensor
    ) -> tuple[Query, Tensor]:
        memory, rotation, ones = memory.clone(), self.rotation[:, positions], x.new_ones(len(x))
        h = self.inputs(streams(x, conditioning.at(positions), torch.zeros_like(x)))
        time = self.time(Level(ones, ones))
        for at, block in enumerate(self.blocks):
            h = block(h, time, rotation, conditioning.attend, keeper(memory, at, positions))
        query: Tensor = self.query(self.norm(h, time))
        return query, memory

    def shard_units(self) -> Sequence[nn.Module]:
        return list(self.blocks)

    def dense_layers(self) -> Sequence[nn.Linear]:
        """Without the modulations, which read one vector per row."""
        blocks = [block for block in self.blocks if isinstance(block, PreNormBlock)]
        return [layer for block in blocks for layer in block.dense()]

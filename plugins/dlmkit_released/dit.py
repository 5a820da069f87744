"""The transformer of SEDD, MDLM, DUO and BD3-LM: DiT's blocks (2212.09748) on token rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.layers import Keep, keeper, rotate, rotation_at
from dlmkit.core.network import Conditioning, Incremental
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import DiscreteSpace, masked_share
from dlmkit.errors import RecipeError
from dlmkit.types import Embedded, Ids, Logits, PerRow, Query
from dlmkit_released import configs
from dlmkit_released.attention import Seen, attended, block_causal, extension, rotary_rates

FREQUENCIES = 128
"""Cosines, and as many sines, of a time; the files' first layer of time reads both."""
ROTARY_BASE = 10000.0


class Time(nn.Module):
    """Cosines and sines of the total noise into an MLP of two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, sigma: Tensor) -> Tensor:
        """(B, 1, width), of ``sigma`` (B,)."""
        steps = torch.arange(FREQUENCIES, device=sigma.device, dtype=torch.float32)
        rates = torch.exp(-math.log(ROTARY_BASE) * steps / FREQUENCIES)
        angles = sigma.float()[..., None] * rates
        features = torch.cat((angles.cos(), angles.sin()), dim=-1)
        time: Tensor = F.silu(self.mlp(features.to(next(self.parameters()).dtype)))
        return time[:, None]


class Norm(nn.Module):
    """Layer norm with a weight and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        nn.init.ones_(self.weight)

    def forward(self, h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        h = F.layer_norm(h, h.shape[-1:], self.weight)
        return torch.addcmul(shift, h, 1.0 + scale)


class DitBlock(nn.Module):
    """Self-attention and feed-forward; time shifts and scales what each reads, and gates it."""

    def __init__(self, width: int, heads: int, features: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.adaLN_modulation = _modulation(features, 6 * width)

    def forward(
        self,
        h: Tensor,
        time: Tensor,
        rotation: Tensor,
        seen: Tensor | None,
        keep: Keep | None = None,
    ) -> Tensor:
        modulation = self.adaLN_modulation(time).chunk(6, dim=-1)
        shift, scale, gate, shift_2, scale_2, gate_2 = modulation
        qkv = self.attn_qkv(self.norm1(h, shift, scale))
        q, k, v = qkv.view(*h.shape[:2], 3, self.heads, -1).unbind(dim=2)
        q, k = rotate(q, rotation), rotate(k, rotation)
        if keep is not None:
            k, v = keep(k, v)
        mixed = attended(q, k, v, seen)
        h = h + gate * self.attn_out(mixed)
        out: Tensor = h + gate_2 * self.mlp(self.norm2(h, shift_2, scale_2))
        return out


class Output(nn.Module):
    """The last norm, modulated, and the head."""

    def __init__(self, width: int, features: int, size: int) -> None:
        super().__init__()
        self.norm_final = Norm(width)
        self.linear = nn.Linear(width, size)
        self.adaLN_modulation = _modulation(features, 2 * width)

    def forward(self, h: Tensor, time: Tensor) -> Logits:
        shift, scale = self.adaLN_modulation(time).chunk(2, dim=-1)
        logits: Tensor = self.linear(self.norm_final(h, shift, scale))
        return logits


def _modulation(features: int, width: int) -> nn.Linear:
    layer = nn.Linear(features, width)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Dit(Incremental):
    """Logits of every row of the table. At given positions it reads the clean token.

    Time is the total noise -log(1 - m) of the masked share m, or zero in a network that does not
    read it: the layers of time run all the same, and add a constant. With ``block`` a position
    sees its own block and those before it (BD3-LM, 2503.09573, while sampling).
    """

    rotation: Tensor

    def __init__(self, config: configs.Dit, context: BuildContext) -> None:
        super().__init__()
        space = context.part("space")
        if not isinstance(space, DiscreteSpace):
            raise RecipeError(
                "network: released:dit needs a space of token ids, such as mdlm:tokens"
            )
        if context.attention not in ("auto", "sdpa"):
            raise RecipeError(f"network: released:dit has no attention {context.attention!r}")
        width, heads = space.dim, config.heads
        if width % (2 * heads):
            raise RecipeError(
                f"network.with.heads: {heads} heads, each of an even number of channels, do not "
                f"divide the {width} channels of the space"
            )
        self.reads_level, self.block = config.time, config.block
        self.sigma_map = Time(config.features)
        self.blocks = nn.ModuleList(
            DitBlock(width, heads, config.features) for _ in range(config.blocks)
        )
        self.output_layer = Output(width, config.features, space.query_dim)
        rotation = rotation_at(context.length, rotary_rates(width // heads, ROTARY_BASE))
        self.register_buffer("rotation", rotation, persistent=False)

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        x = conditioning.shown(x)
        return self.logits(x, -torch.log1p(-masked_share(level)), conditioning.attend)

    def logits(
        self,
        x: Embedded,
        sigma: PerRow,
        seen: Seen | None,
        positions: Int[Tensor, "L"] | None = None,
    ) -> Logits:
        """Of embedded rows at total noise ``sigma``; ``seen`` are keys, or a mask
        (B or 1, 1, L, L) that stands for the block-causal one too. Positions are 0, 1, ... unless
        given."""
        if not self.reads_level:
            sigma = torch.zeros_like(sigma)
        time = self.sigma_map(sigma)
        rotation = self.rotation if positions is None else self.rotation[:, positions]
        mask = block_causal(seen, x.shape[1], self.block, x.device)
        for block in self.blocks:
            x = block(x, time, rotation, mask)
        logits: Tensor = self.output_layer(x, time)
        return logits

    def memory(self, count: int, length: int) -> Tensor:
        first = self.blocks[0]
        assert isinstance(first, DitBlock)
        width = first.attn_out.in_features
        shape = (count, len(self.blocks), 2, length, first.heads, width // first.heads)
        return first.attn_out.weight.new_zeros(shape)

    def extend(
        self, x: Embedded, conditioning: Conditioning, positions: Ids, memory: Tensor
    ) -> tuple[Query, Tensor]:
        x, memory, rotation, mask = extension(
            x, conditioning, positions, memory, self.rotation, self.block
        )
        time = self.sigma_map(torch.zeros(len(x), device=x.device))
        for at, block in enumerate(self.blocks):
            x = block(x, time, rotation, mask, keeper(memory, at, positions))
        query: Tensor = self.output_layer(x, time)
        return query, memory

    def shard_units(self) -> Sequence[nn.Module]:
        return list(self.blocks)

    def dense_layers(self) -> Sequence[nn.Linear]:
        """Without the modulations, which read one vector per row."""
        skipped = {
            id(block.adaLN_modulation) for block in self.blocks if isinstance(block, DitBlock)
        }
        return [layer for layer in super().dense_layers() if id(layer) not in skipped]

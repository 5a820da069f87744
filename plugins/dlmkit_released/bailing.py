"""Bailing's mixture of experts (Ling 2.0, 2510.22115), the network of LLaDA2 (2512.15745)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlmkit.core.context import BuildContext
from dlmkit.core.layers import Keep, keeper, rotate, rotation_at
from dlmkit.core.network import Conditioning, Incremental
from dlmkit.core.schedule import Level
from dlmkit.core.tokens import TokenSpace
from dlmkit.errors import RecipeError
from dlmkit.types import Embedded, Ids, Logits, Query
from dlmkit_released import configs
from dlmkit_released.attention import Seen, attended, block_causal, extension, rotary_rates


class SelfAttention(nn.Module):
    """Queries, keys and values in one matrix, in this order; queries and keys are normed by head
    and rotated in their first channels."""

    def __init__(self, width: int, config: configs.Bailing) -> None:
        super().__init__()
        self.heads, self.groups, self.channels = config.heads, config.groups, config.channels
        self.query_key_value = nn.Linear(
            width, (self.heads + 2 * self.groups) * self.channels, bias=False
        )
        self.query_layernorm = nn.RMSNorm(self.channels, config.epsilon)
        self.key_layernorm = nn.RMSNorm(self.channels, config.epsilon)
        self.dense = nn.Linear(self.heads * self.channels, width, bias=False)

    def forward(
        self, h: Tensor, rotation: Tensor, seen: Tensor | None, keep: Keep | None = None
    ) -> Tensor:
        qkv = self.query_key_value(h).unflatten(-1, (-1, self.channels))
        q, k, v = qkv.split((self.heads, self.groups, self.groups), dim=2)
        q = _rotated(self.query_layernorm(q), rotation)
        k = _rotated(self.key_layernorm(k), rotation)
        if keep is not None:
            k, v = keep(k, v)
        out: Tensor = self.dense(attended(q, k, v, seen))
        return out


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """``x`` (B, L, H, C), its first channels rotated, as many as ``rotation`` has."""
    turned = rotation.shape[-1]
    return torch.cat((rotate(x[..., :turned], rotation), x[..., turned:]), dim=-1)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))
        return out


class Gate(nn.Module):
    """Which experts a token goes to, and with which weights.

    Groups of experts are ranked by their two best, and experts by score inside the best groups;
    a bias counts in the choice, and not in the weights.
    """

    expert_bias: Tensor

    def __init__(self, width: int, config: configs.Bailing) -> None:
        super().__init__()
        self.chosen, self.scale = config.chosen, config.scale
        self.sets, self.kept = config.expert_groups, config.kept_groups
        self.weight = nn.Parameter(torch.empty(config.experts, width))
        nn.init.normal_(self.weight, std=0.02)
        # from zeros, of which layers without memory are not made
        self.register_buffer("expert_bias", torch.empty(config.experts).zero_())

    def forward(self, h: Float[Tensor, "N D"]) -> tuple[Int[Tensor, "N K"], Float[Tensor, "N K"]]:
        scores = F.linear(h.float(), self.weight.float()).sigmoid()  # its choices are close ones
        steered = scores + self.expert_bias.float()
        by_set = steered.view(len(h), self.sets, -1)
        best = by_set.topk(min(2, by_set.shape[-1]), dim=-1).values.sum(dim=-1)
        kept = torch.zeros_like(best, dtype=torch.bool)
        kept.scatter_(1, best.topk(self.kept, dim=-1, sorted=False).indices, True)
        steered = by_set.masked_fill(~kept[..., None], -torch.inf).flatten(1)
        expert = steered.topk(self.chosen, dim=-1, sorted=False).indices
        weight = scores.gather(1, expert)
        if self.chosen > 1:
            weight = weight / (weight.sum(dim=-1, keepdim=True) + 1e-20)
        return expert, weight * self.scale


class Experts(nn.Module):
    """The feed-forward layers of a mixture, each kind of matrix in one stack."""

    def __init__(self, count: int, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Parameter(torch.empty(count, hidden, width))
        self.up_proj = nn.Parameter(torch.empty(count, hidden, width))
        self.down_proj = nn.Parameter(torch.empty(count, width, hidden))
        for stack in self.parameters():
            nn.init.normal_(stack, std=0.02)

    def forward(self, h: Tensor, expert: Tensor, weight: Tensor) -> Tensor:
        out = torch.zeros_like(h)
        for at in expert.unique().tolist():
            token, place = (expert == at).nonzero(as_tuple=True)
            read = h[token]
            inner = F.silu(read @ self.gate_proj[at].T) * (read @ self.up_proj[at].T)
            part = (inner @ self.down_proj[at].T) * weight[token, place, None]
            out.index_add_(0, token, part.to(out.dtype))
        return out


class Mixture(nn.Module):
    """Each token's own experts, and those that all share."""

    def __init__(self, width: int, config: configs.Bailing) -> None:
        super().__init__()
        self.gate = Gate(width, config)
        self.experts = Experts(config.experts, width, config.expert_hidden)
        shared = config.shared_experts
        self.shared_experts = FeedForward(width, shared * config.expert_hidden) if shared else None

    def forward(self, h: Tensor) -> Tensor:
        tokens = h.flatten(0, 1)
        mixed = self.experts(tokens, *self.gate(tokens)).view(h.shape)
        out: Tensor = mixed if self.shared_experts is None else mixed + self.shared_experts(h)
        return out


class Layer(nn.Module):
    """Attention and feed-forward, or experts, each behind a norm."""

    def __init__(self, width: int, config: configs.Bailing, dense: bool) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(width, config.epsilon)
        self.attention = SelfAttention(width, config)
        self.post_attention_layernorm = nn.RMSNorm(width, config.epsilon)
        self.mlp = FeedForward(width, config.hidden) if dense else Mixture(width, config)

    def forward(
        self, h: Tensor, rotation: Tensor, seen: Tensor | None, keep: Keep | None = None
    ) -> Tensor:
        h = h + self.attention(self.input_layernorm(h), rotation, seen, keep)
        out: Tensor = h + self.mlp(self.post_attention_layernorm(h))
        return out


class Bailing(Incremental):
    """Logits of every row of the table; a position sees its own block and those before it.

    It reads no level and no previous prediction, and at given positions the clean token.
    """

    reads_level = False
    rotation: Tensor

    def __init__(self, config: configs.Bailing, context: BuildContext) -> None:
        super().__init__()
        space = context.part("space")
        if not isinstance(space, TokenSpace):
            raise RecipeError("network: released:bailing needs space mdlm:tokens")
        if context.attention not in ("auto", "sdpa"):
            raise RecipeError(f"network: released:bailing has no attention {context.attention!r}")
        self.block = config.block
        self.layers = nn.ModuleList(
            Layer(space.dim, config, dense=at < config.dense) for at in range(config.blocks)
        )
        self.norm = nn.RMSNorm(space.dim, config.epsilon)
        self.lm_head = nn.Linear(space.dim, space.query_dim, bias=False)
        rates = rotary_rates(config.rotated, config.rotary_base)
        rotation = rotation_at(context.length, rates)
        self.register_buffer("rotation", rotation, persistent=False)

    def forward(
        self, x: Embedded, level: Level, conditioning: Conditioning, previous: Tensor
    ) -> Query:
        x = conditioning.shown(x)
        return self.logits(x, conditioning.attend)

    def logits(self, x: Embedded, seen: Seen | None) -> Logits:
        """Of embedded rows; ``seen`` are keys, or a mask (B, 1, L, L), then of the blocks too."""
        mask = block_causal(seen, x.shape[1], self.block, x.device)
        for layer in self.layers:
            x = layer(x, self.rotation, mask)
        logits: Tensor = self.lm_head(self.norm(x))
        return logits

    def memory(self, count: int, length: int) -> Tensor:
        first = self.layers[0].attention
        assert isinstance(first, SelfAttention)
        shape = (count, len(self.layers), 2, length, first.groups, first.channels)
        return self.lm_head.weight.new_zeros(shape)

    def extend(
        self, x: Embedded, conditioning: Conditioning, positions: Ids, memory: Tensor
    ) -> tuple[Query, Tensor]:
        x, memory, rotation, mask = extension(
            x, conditioning, positions, memory, self.rotation, self.block
        )
        for at, layer in enumerate(self.layers):
            x = layer(x, rotation, mask, keeper(memory, at, positions))
        query: Tensor = self.lm_head(self.norm(x))
        return query, memory

    def shard_units(self) -> Sequence[nn.Module]:
        return list(self.layers)

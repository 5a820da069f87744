"""LLaDA2 mini (2512.15745): a block-causal mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from dlmkit import documents
from dlmkit.core.importer import Case, Conversion, Family, Place, Slot, Split, ends_of, mask_of
from dlmkit.core.objective import Objective
from dlmkit.core.tokens import TokenSpace
from dlmkit.plugin import Depth, Size
from dlmkit_released.bailing import Bailing
from dlmkit_released.family import masked

BLOCK = 32
"""Positions of a block; the config does not say (2512.15745)."""


class Rope(documents.Shape):
    """As transformers 5 writes it."""

    rope_type: Literal["default"] = "default"
    rope_theta: float
    partial_rotary_factor: float | None = Field(None, gt=0.0, le=1.0)


class Llada2Keys(documents.Shape):
    """What is read of the config; what has one value here is refused with any other."""

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Depth
    first_k_dense_replace: int = Field(0, ge=0)
    num_attention_heads: Size
    num_key_value_heads: Size
    head_dim: Size | None = None
    partial_rotary_factor: float | None = Field(None, gt=0.0, le=1.0)
    rotary_dim: Size | None = None
    max_position_embeddings: int = Field(gt=0)
    rope_theta: float = 10000.0
    rope_parameters: Rope | None = None
    rms_norm_eps: float = 1e-6
    num_experts: Size
    num_experts_per_tok: Size
    num_shared_experts: int | None = None
    moe_intermediate_size: Size
    n_group: Size = 1
    topk_group: Size = 1
    routed_scaling_factor: float = 1.0
    tie_word_embeddings: Literal[False] = False
    block_size: Size = BLOCK
    rope_scaling: None = None
    hidden_act: Literal["silu"] = "silu"
    norm_topk_prob: Literal[True] = True
    norm_head: Literal[False] = False
    use_bias: Literal[False] = False
    use_qkv_bias: Literal[False] = False
    use_qk_norm: Literal[True] = True
    use_rmsnorm: Literal[True] = True
    use_sliding_window: Literal[False] = False
    using_split_qkv_in_self_attention: Literal[False] = False
    score_function: Literal["sigmoid"] = "sigmoid"
    moe_router_enable_expert_bias: Literal[True] = True

    def rotated(self, channels: int) -> int:
        """Channels of a head that positions rotate."""
        said = self.rope_parameters and self.rope_parameters.partial_rotary_factor
        factor = said or self.partial_rotary_factor
        return int(channels * factor) if factor else self.rotary_dim or channels


_ATTENTION = ("query_key_value", "query_layernorm", "key_layernorm", "dense")
_MATRICES = ("gate_proj", "up_proj", "down_proj")


class Llada2(Family):
    """Nothing is shifted; what a case gives as mask stands for the blocks."""

    def convert(self, config: Mapping[str, Any], tokens: Mapping[str, int]) -> Conversion:
        keys = documents.shaped(dict(config), Llada2Keys)
        channels = keys.head_dim or keys.hidden_size // keys.num_attention_heads
        network = {
            "blocks": keys.num_hidden_layers,
            "dense": keys.first_k_dense_replace,
            "hidden": keys.intermediate_size,
            "heads": keys.num_attention_heads,
            "groups": keys.num_key_value_heads,
            "channels": channels,
            "rotated": keys.rotated(channels),
            "rotary_base": (keys.rope_parameters or keys).rope_theta,
            "epsilon": keys.rms_norm_eps,
            "experts": keys.num_experts,
            "expert_hidden": keys.moe_intermediate_size,
            "shared_experts": keys.num_shared_experts or 0,
            "chosen": keys.num_experts_per_tok,
            "expert_groups": keys.n_group,
            "kept_groups": keys.topk_group,
            "scale": keys.routed_scaling_factor,
            "block": keys.block_size,
        }
        return masked(
            "released:bailing",
            network,
            _tensors(keys),
            dim=keys.hidden_size,
            size=keys.vocab_size,
            mask=mask_of(config, tokens, "<|mask|>"),
            longest=keys.max_position_embeddings,
            attention=keys.block_size,
            stop=ends_of(config, tokens, "<|role_end|>", "<|endoftext|>"),
        )

    def answers(self, objective: Objective, case: Case) -> Mapping[str, Tensor]:
        space, network = objective.space, objective.network
        assert isinstance(space, TokenSpace)
        assert isinstance(network, Bailing)
        seen = case.inputs.get("attention_mask")
        with torch.no_grad():
            read = space.table(case.inputs["input_ids"])
            return {"logits": network.logits(read, None if seen is None else seen.bool())}


def _tensors(keys: Llada2Keys) -> dict[str, Place | Split]:
    places: dict[str, Place | Split] = {
        "model.word_embeddings.weight": "space.table.weight",
        "model.norm.weight": "network.norm.weight",
        "lm_head.weight": "network.lm_head.weight",
    }
    for number in range(keys.num_hidden_layers):
        here = f"layers.{number}"
        names = ["input_layernorm.weight", "post_attention_layernorm.weight"]
        names += [f"attention.{name}.weight" for name in _ATTENTION]
        if number < keys.first_k_dense_replace:
            names += [f"mlp.{name}.weight" for name in _MATRICES]
        else:
            names += ["mlp.gate.weight", "mlp.gate.expert_bias"]
            if keys.num_shared_experts:
                names += [f"mlp.shared_experts.{name}.weight" for name in _MATRICES]
            for name in _MATRICES:
                stack = f"network.{here}.mlp.experts.{name}"
                for expert in range(keys.num_experts):
                    file = f"model.{here}.mlp.experts.{expert}.{name}.weight"
                    places[file] = Slot(stack, expert)
        places |= {f"model.{here}.{name}": f"network.{here}.{name}" for name in names}
    return places

"""Families on Qwen2 and Qwen3, under Qwen's own names: what differs is attention and shift.

Dream (2508.15487) and DiffuCoder (2506.20639) move logits right by one; tiny-a2d is dLLM's
conversion of small models; SDAR (2510.06303) and Fast-dLLM v2 (2509.26328) attend block by block,
the latter with Dream's shift.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from dlmkit import documents
from dlmkit.core.importer import Conversion, Decoded, ends_of, mask_of
from dlmkit.core.objective import Objective
from dlmkit.plugin import Depth, Size
from dlmkit_released import decoding
from dlmkit_released.family import RecordedRun, TokenFamily, masked, predictor, rope

Base = Literal["qwen2", "qwen3"]

ENDS = ("<|im_end|>", "<|endoftext|>")
"""Qwen's ends of a turn and of a text, the second of which also fills up rows."""


class QwenKeys(documents.Shape):
    """What is read of the config; what has one value here is refused with any other."""

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Depth
    num_attention_heads: Size
    num_key_value_heads: Size
    head_dim: Size | None = None
    max_position_embeddings: int = Field(gt=0)
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    block_size: Size = 4
    bd_size: Size = 32
    hidden_act: Literal["silu"] = "silu"
    layer_types: list[Literal["full_attention"]] | None = None
    use_sliding_window: Literal[False] | None = False


class Qwen(TokenFamily):
    """A family on Qwen; subclasses say which, how it attends and whether it shifts."""

    base: Base
    shift: ClassVar[bool] = False
    masks: ClassVar[tuple[str, ...]] = ("<|mask|>",)

    def attention(self, keys: QwenKeys) -> dict[str, Any]:
        return {"attention": "full"}

    def convert(self, config: Mapping[str, Any], tokens: Mapping[str, int]) -> Conversion:
        keys = documents.shaped(dict(config), QwenKeys)
        base = self._base(config)
        architecture: dict[str, Any] = {
            "model_type": base,
            **{key: getattr(keys, key) for key in _COPIED},
            "rope_parameters": rope(keys.rope_theta, keys.rope_scaling, keys.rope_parameters),
        }
        if base == "qwen3":
            channels = keys.head_dim or keys.hidden_size // keys.num_attention_heads
            architecture |= {"head_dim": channels, "attention_bias": keys.attention_bias}
        network: dict[str, Any] = {
            "architecture": architecture,
            "tied": keys.tie_word_embeddings,
            "shift": self.shift,
            **self.attention(keys),
        }
        words, head = "model.embed_tokens.weight", "lm_head.weight"
        names = [head] if not keys.tie_word_embeddings else []
        names += ["model.norm.weight"]
        for block in range(keys.num_hidden_layers):
            names += [f"model.layers.{block}.{name}" for name in _block(base, keys.attention_bias)]
        tensors = {words: "space.table.weight", **{n: f"network.model.{n}" for n in names}}
        return masked(
            "hf:decoder",
            network,
            tensors,
            dim=keys.hidden_size,
            size=keys.vocab_size,
            mask=mask_of(config, tokens, *self.masks),
            longest=keys.max_position_embeddings,
            attention=network.get("block", "full"),
            stop=ends_of(config, tokens, *ENDS),
            copies={head: words} if keys.tie_word_embeddings else {},
        )

    def _base(self, config: Mapping[str, Any]) -> Base:
        return self.base


_COPIED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)


def _block(base: Base, bias: bool) -> list[str]:
    """The tensors of a block."""
    names = ["input_layernorm.weight", "post_attention_layernorm.weight"]
    names += [f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
    names += [f"self_attn.{name}_proj.weight" for name in "qkvo"]
    if base == "qwen3":
        names += [f"self_attn.{name}_norm.weight" for name in "qk"]
        biased = "qkvo" if bias else ""
    else:
        biased = "qkv"
    return names + [f"self_attn.{name}_proj.bias" for name in biased]


class DreamSettings(documents.Shape):
    """Of a decoding run of Dream."""

    steps: Size
    mask_token_id: int
    alg: str
    eps: float = 1e-3
    temperature: float = 0.0
    alg_temp: float | None = 0.0
    threshold: float | None = None
    top_p: float | None = None
    top_k: Size | None = None


ORDERS = {"entropy": "entropy", "maskgit_plus": "confidence", "topk_margin": "margin"}
"""What Dream calls its algorithms, and `masked` the orders that they are."""


class Dream(Qwen):
    """Position i is predicted at i - 1: attention is full, and the training was next-token."""

    base = "qwen2"
    shift = True

    def decoded(self, objective: Objective, run: Mapping[str, Any]) -> Decoded | None:
        """By entropy, probability or its lead at the times of its schedule, at random, or by
        Fast-dLLM's threshold."""
        settings = documents.shaped(run.get("settings"), DreamSettings)
        asked = documents.shaped(dict(run), RecordedRun)
        random = settings.alg == "origin" or bool(settings.alg_temp)
        if settings.alg not in ("origin", "confidence_threshold", *ORDERS) or settings.temperature:
            return None
        if random and asked.steps is None:
            return None
        mask = settings.mask_token_id
        ids, attend = asked.start(mask, next(objective.parameters()).device)
        positions = (attend.cumsum(dim=1) - 1).masked_fill(~attend, 1)  # none counts for padding
        predict = decoding.likeliest(
            predictor(objective, attend, positions), settings.top_p or 1.0, settings.top_k
        )
        if random:
            how = decoding.DecodingSettings("confidence", decoding.FromRecord(run), settings.steps)
        elif settings.alg == "confidence_threshold":
            quota = decoding.Leftover(settings.threshold or 0.9, settings.steps, mask)
            how = decoding.DecodingSettings(
                "confidence", quota, asked.network_calls + 1, until_done=True
            )
        else:
            shares = torch.linspace(1.0, settings.eps, settings.steps + 1)
            shares[-1] = 0.0  # at the last step all
            how = decoding.DecodingSettings(
                ORDERS[settings.alg], decoding.BatchMean(), settings.steps, shares
            )
        return decoding.decode(predict, ids, mask, objective, how)


class A2d(Qwen):
    """dLLM's conversions of small models; logits stay where they are."""

    def _base(self, config: Mapping[str, Any]) -> Base:
        return "qwen2" if config.get("model_type") == "a2d-qwen2" else "qwen3"


class Sdar(Qwen):
    """Block-causal: a position sees its own block and all before it."""

    base = "qwen3"
    masks = ("<|MASK|>", "<MASK>")

    def attention(self, keys: QwenKeys) -> dict[str, Any]:
        return {"attention": "block", "block": keys.block_size}


class FastDllm(Qwen):
    """Block-causal, and shifted: Qwen2.5 that was taught to fill in blocks of 32."""

    base = "qwen2"
    shift = True
    masks = ("|<MASK>|",)

    def attention(self, keys: QwenKeys) -> dict[str, Any]:
        return {"attention": "block", "block": keys.bd_size}

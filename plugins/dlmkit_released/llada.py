"""LLaDA (2502.09992) and LLaDA 1.5 (2505.19223): Llama without causality, under other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from dlmkit import documents
from dlmkit.core.importer import Conversion, Decoded, ends_of, mask_of
from dlmkit.core.objective import Objective
from dlmkit.core.quota import Quota
from dlmkit.plugin import Depth, Size
from dlmkit_released import decoding
from dlmkit_released.family import RecordedRun, TokenFamily, masked, predictor


class LladaKeys(documents.Shape):
    """What is read of the config; what has one value here is refused with any other."""

    d_model: Size
    n_heads: Size
    n_kv_heads: Size | None = None
    multi_query_attention: bool | None = None
    n_layers: Depth
    mlp_hidden_size: Size | None = None
    mlp_ratio: Size = 4
    max_sequence_length: int = Field(gt=0)
    vocab_size: Size
    embedding_size: Size | None = None
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    weight_tying: bool = True
    activation_type: Literal["silu"]
    alibi: Literal[False] = False
    attention_layer_norm: Literal[False] = False
    bias_for_layer_norm: Literal[False] | None = None
    block_group_size: Literal[1] = 1
    block_type: Literal["llama"]
    clip_qkv: None = None
    include_bias: Literal[False] = False
    include_qkv_bias: Literal[False] = False
    input_emb_norm: Literal[False] = False
    layer_norm_type: Literal["rms"]
    layer_norm_with_affine: Literal[True] = True
    rope: Literal[True]
    scale_logits: Literal[False] = False


_BLOCK = {
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
"""Of a block's tensors, what Llama calls them."""


class LladaSettings(documents.Shape):
    """Of a decoding run."""

    steps: Size
    mask_id: int
    block_length: Size | None = None
    temperature: float = 0.0
    remasking: Literal["low_confidence", "random"] = "low_confidence"
    cfg_scale: float = 0.0
    threshold: float | None = None
    factor: float | None = None
    logits_eos_inf: bool = False
    confidence_eos_eot_inf: bool = False


class Llada(TokenFamily):
    """The head is as wide as the table, ``embedding_size``; nothing is shifted."""

    def convert(self, config: Mapping[str, Any], tokens: Mapping[str, int]) -> Conversion:
        keys = documents.shaped(dict(config), LladaKeys)
        size = keys.embedding_size or keys.vocab_size
        groups = 1 if keys.multi_query_attention else keys.n_kv_heads or keys.n_heads
        architecture = {
            "model_type": "llama",
            "hidden_size": keys.d_model,
            "intermediate_size": keys.mlp_hidden_size or keys.mlp_ratio * keys.d_model,
            "num_hidden_layers": keys.n_layers,
            "num_attention_heads": keys.n_heads,
            "num_key_value_heads": groups,
            "max_position_embeddings": keys.max_sequence_length,
            "rms_norm_eps": keys.rms_norm_eps,
            "rope_parameters": {"rope_type": "default", "rope_theta": keys.rope_theta},
            "vocab_size": size,
        }
        prefix, ours = "model.transformer", "network.model.model"
        tensors = {
            f"{prefix}.wte.weight": "space.table.weight",
            f"{prefix}.ln_f.weight": f"{ours}.norm.weight",
        }
        if not keys.weight_tying:
            tensors[f"{prefix}.ff_out.weight"] = "network.model.lm_head.weight"
        for block in range(keys.n_layers):
            for name, llama in _BLOCK.items():
                place = f"{ours}.layers.{block}.{llama}.weight"
                tensors[f"{prefix}.blocks.{block}.{name}.weight"] = place
        network = {"architecture": architecture, "tied": keys.weight_tying}
        return masked(
            "hf:decoder",
            network,
            tensors,
            dim=keys.d_model,
            size=size,
            mask=mask_of(config, tokens, "<|mdm_mask|>"),
            longest=keys.max_sequence_length,
            attention="full",
            stop=ends_of(config, tokens, "<|eot_id|>", "<|endoftext|>"),
        )

    def decoded(self, objective: Objective, run: Mapping[str, Any]) -> Decoded | None:
        """Remasking in blocks, with or without guidance, or Fast-dLLM's threshold or factor."""
        settings = documents.shaped(run.get("settings"), LladaSettings)
        asked = documents.shaped(dict(run), RecordedRun)
        if settings.temperature or settings.logits_eos_inf or settings.confidence_eos_eot_inf:
            return None
        mask = settings.mask_id
        ids, attend = asked.start(mask, next(objective.parameters()).device)
        predict = predictor(objective, attend)
        if settings.cfg_scale:
            prompt = ids != mask
            predict = decoding.guided(
                predict, lambda rows: rows.masked_fill(prompt, mask), settings.cfg_scale
            )
        first, size = len(asked.prompt_ids[0]), settings.block_length or asked.more
        steps = settings.steps * size // asked.more  # of a block
        quota: Quota
        if settings.remasking == "random":
            if asked.steps is None:
                return None
            quota = decoding.FromRecord(run)
        elif settings.threshold is not None:
            quota = decoding.part(objective, "quota", "threshold", threshold=settings.threshold)
            quota = decoding.InBlocks(quota, first, size)
        elif settings.factor is not None:
            quota = decoding.part(objective, "quota", "factor", factor=settings.factor)
            quota = decoding.InBlocks(decoding.LastTwo(quota), first, size)
        else:
            quota = decoding.InBlocks(decoding.Even(size, steps), first, size, steps)
        # by a threshold at least one token a step, whatever is said of steps
        sure = settings.threshold is not None or settings.factor is not None
        most = asked.network_calls + 1 if sure else settings.steps
        how = decoding.DecodingSettings("confidence", quota, most, until_done=sure)
        return decoding.decode(predict, ids, mask, objective, how)

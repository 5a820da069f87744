"""ModernBERT (2412.13663) with its masked-language head, as dLLM trained it to chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from dlmkit import documents
from dlmkit.core.importer import Conversion, ends_of, mask_of
from dlmkit.plugin import Depth, Size
from dlmkit_released.family import TokenFamily, masked


class ModernBertKeys(documents.Shape):
    """What is read of the config; what has one value here is refused with any other."""

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Depth
    num_attention_heads: Size
    max_position_embeddings: int = Field(gt=0)
    norm_eps: float = 1e-5
    global_attn_every_n_layers: Size = 3
    local_attention: Size = 128
    global_rope_theta: float = 160000.0
    local_rope_theta: float | None = 10000.0
    hidden_activation: Literal["gelu"] = "gelu"
    position_embedding_type: Literal["absolute"] = "absolute"
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False
    classifier_bias: bool = False
    classifier_activation: Literal["gelu"] = "gelu"
    decoder_bias: bool = True
    tie_word_embeddings: Literal[True] = True
    layer_types: list[Literal["full_attention", "sliding_attention"]] | None = None
    rope_parameters: dict[str, dict[str, Any]] | None = None


class ModernBert(TokenFamily):
    """Every third layer sees all positions, the others half of ``local_attention`` to each side."""

    # transformers' own code, run on another machine than the golden, is 1.7e-5 from it: logits
    # reach 20 here, where the last bit of a float is 2e-6
    tolerance = 5e-5

    def convert(self, config: Mapping[str, Any], tokens: Mapping[str, int]) -> Conversion:
        keys = documents.shaped(dict(config), ModernBertKeys)
        layers, every = range(keys.num_hidden_layers), keys.global_attn_every_n_layers
        kinds = keys.layer_types or [
            "sliding_attention" if layer % every else "full_attention" for layer in layers
        ]
        thetas = {
            "full_attention": keys.global_rope_theta,
            "sliding_attention": keys.local_rope_theta or keys.global_rope_theta,
        }
        ropes = keys.rope_parameters or {
            kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()
        }
        architecture = {
            "model_type": "modernbert",
            **{key: getattr(keys, key) for key in _COPIED},
            "layer_types": kinds,
            "rope_parameters": ropes,
            "tie_word_embeddings": False,  # by network.tied, to the table of the space
            **{f"{role}_token_id": None for role in ("pad", "bos", "eos", "cls", "sep")},
        }
        words, head = "model.embeddings.tok_embeddings.weight", "decoder.weight"
        names = {"model.embeddings.norm": keys.norm_bias, "model.final_norm": keys.norm_bias}
        names |= {"head.dense": keys.classifier_bias, "head.norm": keys.norm_bias}
        for layer in layers:
            parts = {"attn.Wqkv": keys.attention_bias, "attn.Wo": keys.attention_bias}
            parts |= {"mlp_norm": keys.norm_bias, "mlp.Wi": keys.mlp_bias, "mlp.Wo": keys.mlp_bias}
            if layer:  # the first layer's is the embeddings' norm
                parts["attn_norm"] = keys.norm_bias
            names |= {f"model.layers.{layer}.{part}": bias for part, bias in parts.items()}
        named = [f"{name}.weight" for name in names]
        named += [f"{name}.bias" for name, biased in names.items() if biased]
        named += ["decoder.bias"] if keys.decoder_bias else []
        tensors = {words: "space.table.weight", **{n: f"network.model.{n}" for n in named}}
        return masked(
            "hf:masked-lm",
            {"architecture": architecture, "tied": True},
            tensors,
            dim=keys.hidden_size,
            size=keys.vocab_size,
            mask=mask_of(config, tokens, "[MASK]"),
            longest=keys.max_position_embeddings,
            attention=None,
            stop=ends_of(config, tokens, "[SEP]"),
            copies={head: words},
        )


_COPIED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "norm_eps",
    "local_attention",
    "attention_bias",
    "mlp_bias",
    "norm_bias",
    "classifier_bias",
    "decoder_bias",
)

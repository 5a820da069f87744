"""What the plugin `hf` provides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlmkit import Component, hookimpl
from dlmkit_hf import configs

api = 2


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="space",
            name="word-embeddings",
            summary="the word embeddings of an encoder, fixed (SED), with a tied head",
            config=configs.WordEmbeddings,
            target="dlmkit_hf.space:WordEmbeddings",
            provides=frozenset({"gaussian", "tied"}),
            example={"dim": 6},
        ),
        Component(
            kind="network",
            name="hf-encoder",
            summary="any encoder of transformers (BERT, RoBERTa, MiniLM), pretrained or fresh",
            config=configs.HfEncoder,
            target="dlmkit_hf.encoder:HfEncoder",
            example={
                "architecture": {
                    "model_type": "bert",
                    "vocab_size": 5,
                    "hidden_size": 16,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "intermediate_size": 32,
                    "max_position_embeddings": 12,
                    "type_vocab_size": 1,
                },
                "time_features": 8,
            },
        ),
        Component(
            kind="network",
            name="decoder",
            summary="a decoder of transformers (Llama, Qwen, GPT-2), bidirectional or in blocks",
            config=configs.HfDecoder,
            target="dlmkit_hf.models:HfDecoder",
            provides=frozenset({"segments", "annealing"}),
            requires=frozenset({"masked"}),
            example={"architecture": _llama(), "attention": "block", "block": 2},
        ),
        Component(
            kind="network",
            name="masked-lm",
            summary="a masked language model of transformers (ModernBERT) with its own head",
            config=configs.HfModel,
            target="dlmkit_hf.models:HfModel",
            requires=frozenset({"masked"}),
            example={"architecture": _bert()},
        ),
    ]


def _bert() -> dict[str, Any]:
    return {
        "model_type": "bert",
        "hidden_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "max_position_embeddings": 12,
        "type_vocab_size": 1,
    }


def _llama() -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "intermediate_size": 12,
    }

"""What the plugin `hf` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, hookimpl
from dlmkit_hf import configs


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
    ]

"""What the plugin `tune` provides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlmkit import Component, hookimpl
from dlmkit.core.options import Nothing
from dlmkit.plugin import Command, Recipe, ShippedModel
from dlmkit_tune import configs

api = 2

HERE = Path(__file__).parent
EXAMPLE = {"tokenizer": {"kind": "bytes", "size": 400}, "long": "truncate"}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 6,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
}


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="objective",
            name="adapting",
            summary="mdlm:nelbo of a decoder whose attention opens while it trains",
            config=configs.Adapting,
            target="dlmkit_tune.objective:Adapting",
            provides=frozenset({"likelihood-bound", "texts-apart", "conditioning-dropout"}),
            requires=frozenset({"masked", "annealing"}),
        ),
        Component(
            kind="objective",
            name="blocks",
            summary="BD3-LM's bound: each block predicted from the clean ones before it",
            config=Nothing,
            target="dlmkit_tune.objective:Blocks",
            requires=frozenset({"masked", "blocks"}),
        ),
        Component(
            kind="objective",
            name="drafting",
            summary="the later tokens of a block, by mask slots of a decoder that stays as it is",
            config=configs.Drafting,
            target="dlmkit_tune.drafting:Drafting",
            provides=frozenset({"drafts"}),
            requires=frozenset({"masked", "slots"}),
        ),
        Component(
            kind="network",
            name="drafter",
            summary="a causal decoder of transformers, with adapters in mask slots alone",
            config=configs.Drafter,
            target="dlmkit_tune.drafter:Drafter",
            provides=frozenset({"slots"}),
            requires=frozenset({"masked", "drafts"}),
            example={"architecture": LLAMA},
            expected_failures={
                "gradients-reach-all": "the decoder is frozen, and adapters act in slots alone"
            },
        ),
        Component(
            kind="sampler",
            name="verifying",
            summary="exactly the decoder's own texts, drafted by slots (speculative sampling)",
            config=configs.Verifying,
            target="dlmkit_tune.verifying:Verifying",
            requires=frozenset({"masked", "drafts"}),
            expected_failures={
                "reaches-a-point-mass": "it reads what tune:drafting says of drafts as well"
            },
        ),
        Component(
            kind="data",
            name="conversations",
            summary="questions and answers, an answer per row; only answers are learned",
            config=configs.Conversations,
            target="dlmkit_tune.data:ConversationData",
            example=EXAMPLE,
        ),
        Component(
            kind="data",
            name="packed-conversations",
            summary="the same, several in a row, none of which sees another",
            config=configs.PackedConversations,
            target="dlmkit_tune.data:PackedConversations",
            requires=frozenset({"segments", "texts-apart"}),
            example=EXAMPLE,
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    names = ("a2d_smollm2", "bd3_from_ar", "llada_sft", "smollm2_diffusion")
    every = (name for whole in names for name in (whole, f"{whole}_tiny"))
    return [Recipe(name, HERE / "recipes" / f"{name}.yaml") for name in every]


@hookimpl
def register_commands() -> Sequence[Command]:
    return [
        Command(
            "adapters",
            "Write a run's adapters alone, as a folder that peft opens on the base model",
            "dlmkit_tune.adapters:adapters",
        )
    ]


@hookimpl
def register_models() -> Sequence[ShippedModel]:
    folder = HERE / "models" / "smollm2-diffusion"
    summary = (
        "English: SmolLM2-135M-Instruct, which drafts and verifies; the base comes from the hub"
    )
    return [ShippedModel("smollm2-diffusion", summary, folder)]

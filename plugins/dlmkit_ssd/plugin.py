"""What the plugin `ssd` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, hookimpl
from dlmkit.plugin import Command, Recipe
from dlmkit_ssd import configs

api = 2

SIMPLEX = frozenset({"simplex"})


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="schedule",
            name="cosine",
            summary="variance preserving: alpha is the cosine of time",
            config=configs.Cosine,
            target="dlmkit_ssd.schedule:Cosine",
        ),
        Component(
            kind="space",
            name="simplex",
            summary="almost one-hot logits over the vocabulary, in Gaussian noise",
            config=configs.Simplex,
            target="dlmkit_ssd.space:SimplexSpace",
            provides=SIMPLEX | {"gaussian"},
            example={"dim": 6},
        ),
        Component(
            kind="objective",
            name="block-cross-entropy",
            summary="cross-entropy of noised tokens, in whole rows or block after block",
            config=configs.CrossEntropy,
            target="dlmkit_ssd.objective:BlockCrossEntropy",
            provides=frozenset({"cross-entropy", "conditioning-dropout"}),
            requires=SIMPLEX,
        ),
        Component(
            kind="sampler",
            name="projection",
            summary="tokens are drawn from the prediction and noised afresh",
            config=configs.Projection,
            target="dlmkit_ssd.sampler:Projection",
            requires=SIMPLEX,
            expected_failures={
                name: "it steps to tokens alone, whatever the prediction's scale (SSD-LM, eq. 9)"
                for name in ("reaches-the-distribution", "guidance-may-move-its-target")
            },
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    return Recipe.beside(__file__, "ssd_grammar", "ssd_words")


@hookimpl
def register_commands() -> Sequence[Command]:
    return [
        Command("blocks", "Draw text block after block.", "dlmkit_ssd.blocks:blocks"),
    ]

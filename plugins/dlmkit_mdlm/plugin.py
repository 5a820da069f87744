"""What the plugin `mdlm` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, hookimpl
from dlmkit.core.options import Dropping, Tokens
from dlmkit.plugin import Recipe
from dlmkit_mdlm import configs

api = 2

MASKED = frozenset({"masked"})


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="schedule",
            name="log-linear",
            summary="alpha = 1 - t: every token is masked at a uniform time",
            config=configs.LogLinear,
            target="dlmkit_mdlm.schedule:LogLinear",
        ),
        Component(
            kind="space",
            name="tokens",
            summary="token ids with a mask state; the network puts out the logits",
            config=Tokens,
            target="dlmkit.core.tokens:TokenSpace",
            provides=MASKED | {"token-ids"},
            example={"dim": 6},
        ),
        Component(
            kind="objective",
            name="nelbo",
            summary="a bound on the likelihood: cross-entropy of masked tokens, weighted by time",
            config=Dropping,
            target="dlmkit_mdlm.objective:MaskedBound",
            provides=frozenset({"likelihood-bound", "texts-apart", "conditioning-dropout"}),
            requires=MASKED,
        ),
        Component(
            kind="sampler",
            name="unmasking",
            summary="masked tokens are uncovered at random, drawn in float64; the rest stay",
            config=configs.Unmasking,
            target="dlmkit_mdlm.sampler:UnmaskingSampler",
            requires=MASKED,
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    return Recipe.beside(__file__, "mdlm_grammar", "mdlm_words")

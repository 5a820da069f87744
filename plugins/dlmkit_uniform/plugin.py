"""What the plugin `uniform` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, hookimpl
from dlmkit.plugin import Recipe
from dlmkit_uniform import configs

api = 2

UNIFORM = frozenset({"uniform-state"})


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="space",
            name="states",
            summary="token ids that noise turns into any others; the network puts out the logits",
            config=configs.States,
            target="dlmkit_uniform.space:UniformSpace",
            provides=UNIFORM | {"token-ids"},
            example={"dim": 6},
        ),
        Component(
            kind="objective",
            name="udlm",
            summary="UDLM's and DUO's bound on the likelihood",
            config=configs.Udlm,
            target="dlmkit_uniform.objective:UniformBound",
            provides=frozenset({"likelihood-bound", "conditioning-dropout"}),
            requires=UNIFORM,
        ),
        Component(
            kind="sampler",
            name="posterior",
            summary="a token is drawn and noised again to the next level, drawn in float64",
            config=configs.Posterior,
            target="dlmkit_uniform.sampler:PosteriorSampler",
            requires=UNIFORM,
        ),
        Component(
            kind="sampler",
            name="predictor-corrector",
            summary="DUO's Psi sampler: a share of positions forgets where it was",
            config=configs.PredictorCorrector,
            target="dlmkit_uniform.sampler:PredictorCorrector",
            requires=UNIFORM,
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    return Recipe.beside(__file__, "duo_grammar", "duo_words")

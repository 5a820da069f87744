"""What the plugin `distil` provides. What is published is named; the rest is our choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from dlmkit import Component, Config, hookimpl
from dlmkit.core.options import Nothing
from dlmkit.plugin import Part, PartOf, Recipe, Size

api = 2


class Taught(Config):
    """Who is learned from."""

    teacher: str | None = Field(
        None,
        min_length=1,
        description="the model whose path is learned: a run, a folder of weights or a model that a "
        "plugin ships; default: none, which of embeddings is consistency training",
    )
    start: Literal["teacher", "random"] = Field(
        "teacher", description="with a teacher: where the network's weights begin"
    )
    steps: PositiveInt = Field(32, description="a path's steps, which neighbours are apart by")


class Consistency(Taught):
    """Whose path is learned, and by which steps."""

    passes: Size = Field(
        2, description="of the teacher at a step; the second sees the first prediction, and so on"
    )
    solver: Annotated[Part, PartOf("sampler")] = Field(
        default_factory=lambda: Part(use="samplers:euler"),
        description="what takes the teacher's step",
    )


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            "objective",
            "consistency",
            "one prediction all along a teacher's path, that of its end",
            Consistency,
            "dlmkit_distil.objective:Consistency",
        ),
        Component(
            "objective",
            "discrete-consistency",
            "DUO's distillation: further up a path of tokens what a teacher says further down",
            Taught,
            "dlmkit_distil.discrete:DiscreteConsistency",
            requires=frozenset({"uniform-state"}),
        ),
        Component(
            "sampler",
            "multistep-consistency",
            "the predicted end of the path, noised afresh at every step",
            Nothing,
            "dlmkit_distil.sampler:MultistepConsistency",
            requires=frozenset({"gaussian"}),
            expected_failures={
                "reaches-the-distribution": "it takes predictions for ends of paths, not for means"
            },
        ),
        Component(
            "sampler",
            "multistep-geodesic",
            "the same on a sphere, where the predicted end's direction is its point",
            Nothing,
            "dlmkit_distil.sampler:MultistepGeodesic",
            requires=frozenset({"sphere"}),
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    models = ("", "duo_", "flm_", "sflm_")
    names = [f"consistency_{model}grammar" for model in models]
    return Recipe.beside(__file__, *names)

"""What the plugin `distil` provides. What is published is named; the rest is our choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from dlmkit import Component, Config, hookimpl
from dlmkit.core.options import Nothing
from dlmkit.plugin import Part, PartOf, Recipe, Size
from dlmkit_cdcd.configs import Transformer

api = 2


class Taught(Config):
    """Who is learned from."""

    teacher: str | None = Field(
        None,
        min_length=1,
        description="the model whose path is learned: a run, a folder of weights or a model that a "
        "plugin ships; default: none, where a continuous student learns from the text",
    )
    start: Literal["teacher", "random"] = Field(
        "teacher", description="with a teacher: where the network's weights begin"
    )
    steps: PositiveInt = Field(32, description="a path's steps, which neighbours are apart by")


class Continuous(Taught):
    """Whose path through noise is learned."""

    passes: Size = Field(
        2, description="of the teacher at a step; the second sees the first prediction, and so on"
    )


class TwoTime(Transformer):
    """The transformer's."""

    @model_validator(mode="after")
    def _reads(self) -> Self:
        if not self.level:
            raise ValueError("level (false) must be true: both ends of a step are read")
        return self


class Consistency(Continuous):
    """By which steps."""

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
            "flow-map",
            "FMLM's distillation: of a step of any length, what its two halves say together",
            Continuous,
            "dlmkit_distil.flow_map:FlowMap",
            requires=frozenset({"gaussian", "two-time"}),
        ),
        Component(
            "network",
            "two-time",
            "cdcd:transformer, which reads both ends of a step",
            TwoTime,
            "dlmkit_distil.flow_map:TwoTime",
            provides=frozenset({"two-time"}),
            example={"width": 16, "blocks": 2, "heads": 2, "time_features": 8},
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
    return Recipe.beside(__file__, *names, "fmlm_grammar")

"""What the plugin `langflow` provides. What is published is named; the rest is our choice."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PositiveFloat, PositiveInt

from dlmkit import Component, Config, hookimpl
from dlmkit.core.options import Dropping
from dlmkit.plugin import Recipe, Share

api = 2


class GumbelCurve(Config):
    """Where the Gumbel curve starts, and how it is fitted."""

    location: float = Field(4.7, description="mu, the level of most information (LangFlow on OWT)")
    scale: PositiveFloat = Field(0.85, description="beta, its width (LangFlow on OWT)")
    height: PositiveFloat = Field(7.0, description="H, nats of a token alone (LangFlow on OWT)")
    learning_rate: PositiveFloat = Field(1e-2, description="Adam's rate for the three")
    clip: float = Field(1e-5, gt=0.0, lt=0.1, description="share left out at either end (LangFlow)")


class SkipOptions(Dropping):
    """LangFlow's loss."""

    self_conditioning: Share = Field(0.25, description="rows that see a first prediction")
    ramp: PositiveInt = Field(5000, description="steps over which the skip rises; train for more")


@hookimpl
def register_components() -> list[Component]:
    return [
        Component(
            "schedule",
            "gumbel",
            "log noise-to-signal ratios from a Gumbel curve fitted to the cross-entropy",
            GumbelCurve,
            "dlmkit_langflow.model:Gumbel",
            example={"location": 1.0, "height": 3.0},
        ),
        Component(
            "objective",
            "skip-cross-entropy",
            "cross-entropy with a skip from the noisy input to the embedding table",
            SkipOptions,
            "dlmkit_langflow.model:SkippedCrossEntropy",
            provides=frozenset({"cross-entropy", "conditioning-dropout"}),
            requires=frozenset({"gaussian", "tied"}),
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    return Recipe.beside(__file__, "langflow_grammar", "langflow_words")

"""What the plugin `sedd` provides. What is published is named; the rest is our choice."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PositiveFloat

from dlmkit import Component, Config, hookimpl
from dlmkit.core.options import Dropping, Nothing
from dlmkit.plugin import Recipe

api = 2

SCORES = frozenset({"concrete-score"})


class Geometric(Config):
    """The total noise, -log of the share of tokens that are left, rises geometrically."""

    low: PositiveFloat = Field(1e-4, description="total noise at t = 0 (SEDD's code)")
    high: PositiveFloat = Field(20.0, description="total noise at t = 1 (SEDD's code)")


@hookimpl
def register_components() -> list[Component]:
    return [
        Component(
            "schedule",
            "geometric",
            "the total noise rises geometrically in time",
            Geometric,
            "dlmkit_sedd.parts:GeometricNoise",
        ),
        Component(
            "objective",
            "score-entropy",
            "ratios of probabilities by SEDD's score entropy, under masks or the uniform state",
            Dropping,
            "dlmkit_sedd.parts:ScoreEntropy",
            provides=SCORES | {"likelihood-bound", "conditioning-dropout"},
            requires=frozenset({"token-ids"}),
            expected_failures={
                "oracle-has-no-loss": "the kit's answers are not scaled, and scores are",
                "given-does-not-count": "the kit's answers are not scaled, and scores are",
            },
        ),
        *(
            Component(
                "sampler", name, summary, Nothing, f"dlmkit_sedd.sampler:{target}", requires=SCORES
            )
            for name, summary, target in (
                ("tweedie", "the optimal step of all positions apart, in closed form", "Tweedie"),
                ("tau-leaping", "Euler: rates as they are at the start of the step", "TauLeaping"),
            )
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    return Recipe.beside(__file__, "sedd_grammar", "sedd_words")

"""What the plugin `langflow` provides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlmkit import Component, hookimpl
from dlmkit.plugin import Recipe
from dlmkit_langflow import configs

api = 2


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="schedule",
            name="gumbel",
            summary="log noise-to-signal ratios from a Gumbel curve fitted to the cross-entropy",
            config=configs.Gumbel,
            target="dlmkit_langflow.schedule:Gumbel",
            example={"location": 1.0, "height": 3.0},
        ),
        Component(
            kind="objective",
            name="skip-cross-entropy",
            summary="cross-entropy with a skip from the noisy input to the embedding table",
            config=configs.CrossEntropy,
            target="dlmkit_langflow.objective:SkippedCrossEntropy",
            provides=frozenset({"cross-entropy"}),
            requires=frozenset({"gaussian", "tied"}),
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    return [Recipe("langflow_grammar", Path(__file__).with_name("langflow_grammar.yaml"))]

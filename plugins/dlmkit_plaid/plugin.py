"""What the plugin `plaid` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, hookimpl
from dlmkit.plugin import Recipe
from dlmkit_plaid import configs

api = 2


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="schedule",
            name="monotone",
            summary="variance preserving; a monotone network whose ends are learned as well",
            config=configs.Monotone,
            target="dlmkit_plaid.schedule:Monotone",
            provides=frozenset({"learned-gamma"}),
            example={"units": 8},
        ),
        Component(
            kind="objective",
            name="bound",
            summary="a bound on the negative log-likelihood, in nats per token",
            config=configs.Bound,
            target="dlmkit_plaid.objective:LikelihoodBound",
            provides=frozenset({"likelihood-bound", "conditioning-dropout"}),
            requires=frozenset({"gaussian", "tied", "learned-gamma"}),
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    return Recipe.beside(__file__, "plaid_grammar", "plaid_words")

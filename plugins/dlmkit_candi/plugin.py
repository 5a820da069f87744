"""What the plugin `candi` provides. What is published is named; the rest is our choice."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from dlmkit import Component, Config, hookimpl
from dlmkit.core.options import Dropping, Nothing
from dlmkit.plugin import Recipe, Share, Size

api = 2

HYBRID = frozenset({"hybrid-noise"})


class Hybrid(Config):
    """Where there is no token, its one-hot vector in Gaussian noise."""

    dim: Size = Field(768, description="channels that the network reads of a token")
    low: float = Field(
        0.01,
        gt=0.0,
        lt=0.4,
        description="mean share of tokens that outdo the right one, where the fewest are noised "
        "(CANDI: 0.01); it sets sigma",
    )
    high: float = Field(
        0.25, gt=0.0, lt=0.45, description="the same where all are noised (CANDI: 0.25)"
    )
    mixed: Share = Field(
        0.5, description="of what is read of a noised token, the share that says so (CANDI: half)"
    )


@hookimpl
def register_components() -> list[Component]:
    return [
        Component(
            "space",
            "hybrid",
            "tokens, or their one-hot vectors in Gaussian noise; the network puts out the logits",
            Hybrid,
            "dlmkit_candi.model:HybridSpace",
            provides=HYBRID,
            example={"dim": 6},
        ),
        Component(
            "objective",
            "hybrid-cross-entropy",
            "cross-entropy of noised tokens, weighted by time as MDLM's",
            Dropping,
            "dlmkit_candi.model:HybridCrossEntropy",
            provides=frozenset({"conditioning-dropout"}),
            requires=HYBRID,
        ),
        Component(
            "sampler",
            "hybrid-euler",
            "noised tokens follow the probability flow until they are drawn, some at each step",
            Nothing,
            "dlmkit_candi.model:HybridSampler",
            requires=HYBRID,
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    return Recipe.beside(__file__, "candi_grammar", "candi_words")

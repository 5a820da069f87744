"""What the plugin `flow` provides. What is published is named; the rest is our choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from dlmkit import Component, Config, hookimpl
from dlmkit.core.options import Dropping, LossTable, Normalised
from dlmkit.plugin import Recipe, Size

api = 2


class DecodingError(Config):
    """FLM's times: equal steps of the chance that a token is lost."""

    clip: float = Field(1e-3, gt=0.0, lt=0.1, description="share left out at either end (FLM: 0)")


class OneHot(Config):
    """FLM's space, and what the network reads of it."""

    dim: Size = Field(768, description="channels that the network reads of a position")
    reads: Literal["linear", "posterior"] = Field(
        "linear",
        description="x times a matrix (FLM), or the matrix's mean row under what x alone says of "
        "its token (our choice: nothing is lost where there are more tokens than channels)",
    )


class Truncated(LossTable):
    """S-FLM's times: none below which tokens are plain, and most where the loss rises."""

    delta: float = Field(0.1, gt=0.0, lt=1.0, description="chance of a token misread there (S-FLM)")
    mix: float = Field(1e-3, gt=0.0, le=1.0, description="share of uniform draws (S-FLM: 0.001)")


class Geodesic(Config):
    """S-FLM's sampler."""

    top: Size | None = Field(
        None, description="likeliest tokens that alone say where to (default: all of them)"
    )


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            "schedule",
            "decoding-error",
            "a straight line from tokens to noise; equal steps of the chance to lose a token",
            DecodingError,
            "dlmkit_flow.flat:DecodingError",
        ),
        Component(
            "space",
            "one-hot",
            "tokens as one-hot vectors, in Gaussian noise",
            OneHot,
            "dlmkit_flow.flat:OneHotSpace",
            provides=frozenset({"gaussian", "flow"}),
            example={"dim": 16},
        ),
        Component(
            "schedule",
            "truncated-sphere",
            "shares of an arc from noise to tokens, as far as tokens are not plain",
            Truncated,
            "dlmkit_flow.sphere:Truncated",
        ),
        Component(
            "space",
            "sphere",
            "points on a sphere, noised along great circles",
            Normalised,
            "dlmkit_flow.sphere:SphereSpace",
            provides=frozenset({"sphere", "flow", "unit-norm"}),
            example={"dim": 6, "start": "counts", "counts": {"tokens": 5000}},
        ),
        Component(
            "objective",
            "token-cross-entropy",
            "cross-entropy at noised positions, where predictions are not fed back",
            Dropping,
            "dlmkit_flow.flat:TokenCrossEntropy",
            provides=frozenset({"cross-entropy", "conditioning-dropout"}),
            requires=frozenset({"flow"}),
        ),
        Component(
            "sampler",
            "geodesic",
            "along great circles towards the mean direction of the predicted tokens",
            Geodesic,
            "dlmkit_flow.sphere:GeodesicEuler",
            requires=frozenset({"sphere"}),
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    return Recipe.beside(__file__, "flm_grammar", "sflm_grammar", "flm_words", "sflm_words")

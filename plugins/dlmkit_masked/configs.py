"""Options of the components of `masked`. What a paper states is named; the rest is our choice."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from dlmkit import Config
from dlmkit.core.options import Nothing as Nothing
from dlmkit.plugin import Part, Size, part_of


class Draw(Config):
    """Which token is written where one is."""

    temperature: float = Field(
        1.0, ge=0.0, description="logits are divided by it for the draw alone; 0: the likeliest"
    )
    top_p: float = Field(
        1.0, gt=0.0, le=1.0, description="draw from the likeliest tokens of this probability"
    )
    top_k: Size | None = Field(None, description="draw from this many of the likeliest tokens")


class Decoder(Config):
    """Which positions first, how many now, which token, and what goes back."""

    order: part_of("order") = Field(
        default_factory=lambda: Part(use="masked:random"),
        description="which open positions come first",
    )
    quota: part_of("quota") = Field(
        default_factory=lambda: Part(use="masked:schedule"),
        description="how many of them are written at a step",
    )
    draw: Draw = Field(default_factory=Draw, description="which token")
    remask: part_of("remask") | None = Field(
        None, description="which written positions go back; none: what is written stays"
    )
    window: Size | None = Field(
        None,
        description="write in stretches of this many positions, left to right (LLaDA's "
        "block_length); attention still sees all",
    )
    window_from: Literal["text", "row"] = Field(
        "text",
        description="windows are counted from the first position that is written (LLaDA), or from "
        "a row's first, as an exact cache of blocks needs (SDAR)",
    )


class Corpus(Config):
    """Confidence times how rare the token is in the training text."""

    data: part_of("data") | None = Field(
        None, description="the text that is counted (default: the recipe's, if it has been read)"
    )
    tokens: Size = Field(1_000_000, description="tokens of it that are counted (our choice)")
    most: PositiveFloat = Field(
        10.0, description="the highest -log f, in nats (PC-Sampler: of the score, 10)"
    )
    decay: float = Field(
        0.0, ge=0.0, description="lambda: a score falls by exp(-lambda) a position (0: no prior)"
    )


class Schedule(Config):
    """A share of what is open, fixed beforehand."""

    shape: Literal["level", "linear", "cosine", "square", "root", "plateau"] = Field(
        "linear",
        description="the share that stays masked at a share u of a row's steps: that of the "
        "grid's levels (MDLM); 1 - u (LLaDA); cos(pi u / 2) (MaskGIT, 2202.04200); 1 - u^2; "
        "1 - sqrt(u); or 1 - u with a stop between `on` and `off`, for remasking (ReMDM-loop)",
    )
    count: Literal["fixed", "drawn"] = Field(
        "fixed",
        description="as many as expected, rounded up and at least one; or each position with that "
        "chance, which may be none at a step (MDLM)",
    )
    on: float = Field(
        0.5, ge=0.0, le=1.0, description="of plateau: the share of steps at its start"
    )
    off: float = Field(0.9, ge=0.0, le=1.0, description="of plateau: the share of steps at its end")

    @model_validator(mode="after")
    def _stops(self) -> Self:
        if self.shape == "plateau" and not self.on < self.off:
            raise ValueError(f"on ({self.on}) comes before off ({self.off})")
        return self


class Threshold(Config):
    """All positions that are certain enough."""

    threshold: float = Field(
        0.9, gt=0.0, le=1.0, description="probability of the likeliest token (Fast-dLLM: 0.9)"
    )


class Factor(Config):
    """As many as are certain together."""

    factor: PositiveFloat = Field(
        1.0, description="f: the largest n with (n + 1)(1 - p) < f, p the least of the n"
    )


class EntropyBound(Config):
    """As many as can hardly disagree."""

    bound: float = Field(
        0.1, ge=0.0, description="gamma: nats of all the entropies but the largest"
    )


class Stable(Config):
    """Certain positions whose prediction has stopped moving."""

    threshold: float = Field(
        0.9, gt=0.0, le=1.0, description="probability of the likeliest token (our choice)"
    )
    kl: PositiveFloat = Field(
        0.01, description="epsilon: nats that a prediction may move at a step (KLASS: 0.01)"
    )
    steps: Size = Field(2, description="steps in a row that it must not (KLASS: 2)")


class ByRule(Config):
    """Positions at which an exit rule holds."""

    rule: part_of("exit") = Field(
        description="asked of every position, as a recipe's `freeze` is",
        examples=[{"use": "samplers:margin", "with": {"threshold": 0.9}}],
    )


class TokensPerStep(Config):
    """The same number at every step."""

    tokens: Size = Field(1, description="positions per step; 1 is exact for an exact model")


class Remdm(Config):
    """ReMDM (2503.00307)."""

    rule: Literal["cap", "rescale", "confidence"] = Field(
        "cap",
        description="the chance: at most eta; eta times the largest there can be; or that, shared "
        "out by the softmax of minus the probability that each token was drawn with",
    )
    eta: float = Field(0.04, ge=0.0, le=1.0, description="eta (ReMDM-cap: 0.04)")
    on: float = Field(0.0, ge=0.0, le=1.0, description="from this share of a row's steps on")
    off: float = Field(1.0, ge=0.0, le=1.0, description="up to this share")

    @model_validator(mode="after")
    def _stops(self) -> Self:
        if not self.on < self.off:
            raise ValueError(f"on ({self.on}) comes before off ({self.off})")
        return self


class Doubted(Config):
    """Written tokens that the model would not write again."""

    threshold: float = Field(
        0.1, gt=0.0, lt=1.0, description="probability below which a token goes back (our choice)"
    )

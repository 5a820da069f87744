"""Options of the components of `langflow`. What is published is named; the rest is our choice."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from dlmkit import Config


class Gumbel(Config):
    """Where the Gumbel curve starts, and how it is fitted."""

    location: float = Field(
        4.7, description="mu, the noise level of most information (LangFlow on OWT ends at 4.7)"
    )
    scale: PositiveFloat = Field(0.85, description="beta, its width (LangFlow on OWT: 0.85)")
    height: PositiveFloat = Field(
        7.0, description="H, nats of a token without context (LangFlow on OWT: 7.0)"
    )
    learning_rate: PositiveFloat = Field(1e-2, description="Adam's rate for the three")
    clip: float = Field(
        1e-5, gt=0.0, lt=0.1, description="share left out at either end (LangFlow: 1e-5)"
    )


class CrossEntropy(Config):
    """LangFlow's loss."""

    self_conditioning: float = Field(
        0.25, ge=0.0, le=1.0, description="share of rows that see a first prediction (LangFlow)"
    )
    ramp: PositiveInt = Field(
        5000, description="steps over which the skip rises (LangFlow); train for more"
    )

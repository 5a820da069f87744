"""Options of the components of `ssd`. What the paper states is named; the rest is our choice."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from dlmkit import Config
from dlmkit.core.options import Dropping
from dlmkit.plugin import MOST, Size


class Cosine(Config):
    """The cosine schedule."""

    offset: float = Field(1e-4, ge=0.0, lt=1.0, description="s of the cosine (SSD-LM: 1e-4)")
    steps: int = Field(
        5000,
        gt=2,
        le=MOST,
        description="T: times lie between 1 / T and 1 - 1 / T (SSD-LM: 5000)",
    )


class Simplex(Config):
    """Almost one-hot logits."""

    dim: Size = Field(1024, description="channels that the network reads of a token")
    scale: PositiveFloat = Field(5.0, description="K: tokens are logits of +K and -K (SSD-LM: 5)")


class CrossEntropy(Dropping):
    """Whole rows, and rows that end after one block."""

    block: Size | None = Field(
        None, description="B, positions of a block (SSD-LM: 25); default: no blocks"
    )
    whole: float = Field(
        0.5, ge=0.0, le=1.0, description="where there are blocks, share of rows without (SSD-LM: 0)"
    )


class Projection(Config):
    """Tokens are drawn between steps."""

    top_p: float = Field(
        1.0, ge=0.0, le=1.0, description="share of probability drawn from; 0 takes the likeliest"
    )

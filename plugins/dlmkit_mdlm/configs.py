"""Options of the components of `mdlm`. What the paper states is named; the rest is our choice."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from dlmkit import Config
from dlmkit.plugin import Size


class Nothing(Config):
    """No options."""


class LogLinear(Config):
    """The share of masked tokens rises linearly in time."""

    floor: float = Field(
        1e-3, gt=0.0, lt=0.1, description="share still clean at t = 1, and the lowest t (MDLM)"
    )


class Tokens(Config):
    """Token ids, and a mask."""

    dim: Size = Field(768, description="channels that the network reads of a token")
    size: Size | None = Field(
        None,
        description="rows of the table, each with a logit, the mask among them (of a released "
        "model; default: the tokenizer's tokens, and the mask behind them, which has no logit)",
    )
    mask: int | None = Field(
        None, ge=0, description="with size: the mask's id (default: the last row)"
    )

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.mask is not None and self.mask >= (self.size or 0):
            raise ValueError(f"mask ({self.mask}) is an id below size ({self.size})")
        return self

"""Options that parts of several plugins share. Imports no torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from dlmkit.plugin import Config, Size


class Counts(Config):
    """How neighbours are counted, for :func:`dlmkit.core.counts.start_from_counts`."""

    window: Size = Field(
        5,
        description="neighbours up to so many positions away count, to the left and to the right; "
        "one that is k away counts 1 / k",
    )
    tokens: PositiveInt = Field(
        2_000_000,
        description="training tokens that are read and counted; a shorter text is read again",
    )
    smoothing: float = Field(
        0.75,
        gt=0.0,
        le=1.0,
        description="power of the neighbours' frequencies (Levy and others 2015: 0.75); 1 changes "
        "nothing, less makes rare neighbours tell less",
    )


class Tokens(Config):
    """Of :class:`dlmkit.core.tokens.TokenSpace`: token ids, and a mask."""

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

"""Options of the components of `markov`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveFloat, model_validator

from dlmkit import Config
from dlmkit.plugin import Size


class MarkovText(Config):
    """Texts of a random Markov chain."""

    tokens: int = Field(48, ge=2, le=10_000, description="tokens of the chain, <pad> aside")
    sharpness: PositiveFloat = Field(
        2.4, description="standard deviation of the log-transitions: higher is more predictable"
    )
    chain_seed: int = Field(0, ge=0, description="which chain")
    successors: Size | None = Field(
        None,
        description="tokens that may follow a token, its likeliest, others but once in a million "
        "(default: any may)",
    )

    @model_validator(mode="after")
    def _fewer(self) -> Self:
        if self.successors is not None and self.successors >= self.tokens:
            raise ValueError(f"successors ({self.successors}) are fewer than tokens")
        return self


class FixedEmbeddings(Config):
    """Fixed random embeddings."""

    dim: Size = Field(16, description="D, channels of an embedding of norm sqrt(D)")
    seed: int = Field(0, ge=0, description="which embeddings")


class ExactWarp(Config):
    """A variance-exploding schedule warped by the exact cross-entropy."""

    t_min: PositiveFloat = Field(0.05, description="smallest noise")
    t_max: PositiveFloat = Field(30.0, description="largest noise")
    levels: int = Field(48, ge=2, description="noise levels at which it is measured")
    rows: Size = Field(128, description="texts that it is measured on")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.t_min >= self.t_max:
            raise ValueError("t_min must be below t_max")
        return self


class ExactMetric(Config):
    """Distance of texts from the chain."""

    blocks: int = Field(
        20, ge=2, description="groups of texts that the jackknife leaves out one by one"
    )
    draws: Size = Field(20, description="samples of the chain that say what finite samples show")

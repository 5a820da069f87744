"""Options of the components of `cdcd`. What the paper states is named; the rest is our choice."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from dlmkit import Config, part_of
from dlmkit.core.options import Dropping, LossTable
from dlmkit.plugin import Depth, Share, Size


class Times(Config):
    """The range of noise levels: t is the noise's standard deviation."""

    t_min: PositiveFloat = Field(1.0, description="lowest noise level (CDCD: 1)")
    t_max: PositiveFloat = Field(300.0, description="highest noise level (CDCD: 300)")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.t_min >= self.t_max:
            raise ValueError(f"t_min ({self.t_min}) must lie below t_max ({self.t_max})")
        return self


class VarianceExploding(Times):
    """No warping: times are drawn from a fixed density."""

    density: Literal["uniform", "log-uniform"] = Field(
        "uniform", description="density of the training times (CDCD's unwarped baseline: uniform)"
    )


class TimeWarp(Times):
    """CDCD, appendix A."""

    bins: Size = Field(100, description="pieces of the CDF (CDCD: 100)")
    learning_rate: PositiveFloat = Field(1e-2, description="Adam's rate for the CDF (our choice)")
    floor: PositiveFloat = Field(
        1e-4, description="added to every width before normalising (CDCD gives no value)"
    )
    temperature: PositiveFloat = Field(1.0, description="T of the density (CDCD's base: 1)")
    uniform_mix: float = Field(0.0, ge=0.0, le=1.0, description="share of uniform t (base: 0)")
    ema: float = Field(0.0, ge=0.0, lt=1.0, description="decay of the CDF used for sampling")


class TimeWarpTable(LossTable, Times):
    """A table of losses by noise level with a short memory; its bins are log-spaced in t."""

    log_uniform_mix: float = Field(
        0.1, gt=0.0, le=1.0, description="share of log-uniform draws that stays"
    )


class Transformer(Config):
    """CDCD states 8 blocks of 1024 units with RoPE; heads and feed-forward are our choice."""

    width: Size = Field(1024, description="channels of a block (CDCD base: 1024)")
    blocks: Depth = Field(8, description="transformer blocks (CDCD base: 8)")
    heads: Size = Field(16, description="attention heads (our choice)")
    feed_forward: Size = Field(4, description="hidden width as a multiple of width")
    normalise_queries: bool = Field(
        True, description="RMS-normalise queries and keys (our choice: stable at high rates)"
    )
    query_bias: bool = Field(
        False,
        description="constants in queries and keys, drawn from N(0, 1): every head starts with a "
        "pattern of offsets (our choice; small models learn context sooner)",
    )
    rotary_base: PositiveFloat = Field(
        10000.0, description="longest wavelength of RoPE over 2 pi (RoFormer: 10000; short: 100)"
    )
    level: bool = Field(
        True,
        description="read the noise level; without it (MDLM's published models), `mdlm` uses a "
        "prediction again until a token changes, and an accelerator waits once a step for that",
    )
    time_features: Size = Field(128, description="Fourier features, MLP units (CDCD: 128)")
    time_bandwidth: PositiveFloat = Field(
        1.0, description="std of the Fourier frequencies over log noise-to-signal (our choice)"
    )

    @model_validator(mode="after")
    def _heads(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is no even multiple of heads {self.heads}")
        if self.time_features % 2:
            raise ValueError(f"time_features ({self.time_features}) must be even")
        return self


class ScoreInterpolation(Dropping):
    """CDCD, sections 3 and 4."""

    self_conditioning: float = Field(
        0.5, ge=0.0, le=1.0, description="share of rows that see a first prediction (CDCD: half)"
    )
    conditioning_dropout: Share = Field(
        0.1, description="share of rows without clean embeddings (CDCD: 10 %)"
    )


class Mix(Config):
    """CDCD's base mixes prefix and random half and half."""

    parts: list[part_of("masking")] = Field(
        min_length=1,
        description="the maskings",
        examples=[[{"use": "cdcd:prefix"}, {"use": "cdcd:random"}]],
    )
    weights: list[PositiveFloat] | None = Field(None, description="shares; default: equal")

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.parts):
            raise ValueError(f"{len(self.weights)} weights for {len(self.parts)} parts")
        return self

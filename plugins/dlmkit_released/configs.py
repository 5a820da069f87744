"""Options of the components of `released`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveFloat, model_validator

from dlmkit import Config
from dlmkit.plugin import Depth, Size


class Dit(Config):
    """The transformer of SEDD, MDLM, DUO and BD3-LM; its width is the space's."""

    blocks: Depth = Field(12, description="transformer blocks (MDLM: 12)")
    heads: Size = Field(12, description="attention heads (MDLM: 12)")
    features: Size = Field(128, description="channels of the time embedding (MDLM: 128)")
    time: bool = Field(False, description="reads the noise level; without, zero (MDLM: false)")
    block: Size | None = Field(
        None, description="positions of a block, which sees itself and those before it (BD3-LM)"
    )


class Points(Config):
    """Points of norm 1, which the network scores by itself."""

    dim: Size = Field(16, description="channels of a point (Plaid: 16)")
    size: Size | None = Field(
        None, description="points of a released model (default: the tokenizer's tokens)"
    )


class PlaidNetwork(Config):
    """Plaid's transformer."""

    width: Size = Field(2048, description="channels (Plaid 1B: 2048)")
    blocks: Depth = Field(24, description="transformer blocks (Plaid 1B: 24)")
    heads: Size = Field(32, description="attention heads (Plaid 1B: 32)")

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"heads ({self.heads}), each of an even number of channels, must divide width "
                f"({self.width})"
            )
        return self


class WordSimplex(Config):
    """Almost one-hot logits, and words that known tokens are read from."""

    width: Size = Field(1024, description="channels of a word; the network reads twice as many")
    scale: PositiveFloat = Field(5.0, description="K: tokens are logits of +K and -K (SSD-LM: 5)")
    size: Size | None = Field(
        None, description="words of a released model (default: the tokenizer's tokens)"
    )


class Roberta(Config):
    """RoBERTa of SSD-LM's size; its width is that of the space's words."""

    blocks: Depth = Field(24, description="transformer blocks (SSD-LM: 24)")
    heads: Size = Field(16, description="attention heads (SSD-LM: 16)")
    hidden: Size = Field(4096, description="channels inside a block's feed-forward layer")
    positions: Size = Field(514, description="rows of the position table, some before the first")
    pad: int = Field(1, ge=0, description="id of padding: the first position is the next one")
    epsilon: PositiveFloat = Field(1e-5, description="in the norms, added to the variance")


class Bailing(Config):
    """Bailing's mixture of experts, as LLaDA2 mini has it; its width is the space's."""

    blocks: Depth = Field(20, description="layers (LLaDA2 mini: 20)")
    dense: int = Field(1, ge=0, description="first layers without experts (LLaDA2 mini: 1)")
    hidden: Size = Field(5120, description="channels inside a layer without experts")
    heads: Size = Field(16, description="attention heads")
    groups: Size = Field(4, description="heads of keys and values, each read by heads / groups")
    channels: Size = Field(128, description="channels of a head")
    rotated: Size = Field(64, multiple_of=2, description="of them, those that positions rotate")
    rotary_base: PositiveFloat = Field(600000.0, description="base of the rotary frequencies")
    epsilon: PositiveFloat = Field(1e-6, description="in the norms, added to the mean square")
    experts: Size = Field(256, description="experts of a layer")
    expert_hidden: Size = Field(512, description="channels inside an expert")
    shared_experts: int = Field(1, ge=0, description="experts that every token goes to")
    chosen: Size = Field(8, description="experts that a token is sent to")
    expert_groups: Size = Field(8, description="groups of experts")
    kept_groups: Size = Field(4, description="groups that a token's experts are chosen from")
    scale: PositiveFloat = Field(2.5, description="what the weights of a token's experts sum to")
    block: Size | None = Field(
        32, description="positions of a block, which sees itself and those before it"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.heads % self.groups:
            raise ValueError(f"groups ({self.groups}) must divide heads ({self.heads})")
        if self.rotated > self.channels:
            raise ValueError(f"rotated ({self.rotated}) is more than channels ({self.channels})")
        if self.experts % self.expert_groups:
            raise ValueError(
                f"expert_groups ({self.expert_groups}) must divide experts ({self.experts})"
            )
        reached = self.kept_groups * (self.experts // self.expert_groups)
        if self.kept_groups > self.expert_groups or self.chosen > reached:
            raise ValueError(
                f"chosen ({self.chosen}) and kept_groups ({self.kept_groups}) are more than "
                f"{self.expert_groups} groups of {self.experts} experts have"
            )
        return self

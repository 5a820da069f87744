"""Options of the components of `hf`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from dlmkit import Config
from dlmkit.plugin import Size
from dlmkit_hf import encoders


class HfEncoder(Config):
    """A bidirectional encoder of transformers, started from its weights or afresh."""

    name: str | None = Field(
        None, description="a folder here, or a model's name on the Hugging Face hub"
    )
    revision: str | None = Field(None, description="of a model of the hub: a commit, branch or tag")
    architecture: dict[str, Any] | None = Field(
        None,
        description="instead of name: a fresh encoder by the keys of its config.json, model_type "
        "among them",
    )
    from_scratch: bool = Field(
        False, description="the architecture of name with fresh weights, to compare with"
    )
    time_features: Size = Field(128, description="Fourier features of the level (our choice)")
    time_bandwidth: PositiveFloat = Field(
        1.0, description="std of the Fourier frequencies over log noise-to-signal (our choice)"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.name is None) == (self.architecture is None):
            raise ValueError("give name (a pretrained encoder) or architecture (a fresh one)")
        if self.name is None and (self.from_scratch or self.revision is not None):
            raise ValueError("from_scratch and revision go with name")
        if self.architecture is not None:
            encoders.check(self.architecture)
        if self.time_features % 2:
            raise ValueError(f"time_features ({self.time_features}) must be even")
        return self


class Lora(Config):
    """Adapters of low rank beside frozen weights (2106.09685), by `peft` (extra: lora)."""

    rank: Size = Field(16, description="rank of each adapter")
    alpha: PositiveFloat = Field(32.0, description="an adapter counts alpha / rank times")
    targets: list[str] | None = Field(
        None,
        min_length=1,
        description="names of the layers that get one, such as [q_proj, v_proj] (default: all "
        "linear layers but the head)",
    )
    words: bool = Field(
        False, description="train the table of tokens too, the mask's row among them"
    )


class HfModel(Config):
    """A language model of transformers with its own head, reading a space of tokens and a mask."""

    name: str | None = Field(
        None, description="a folder here, or a model's name on the Hugging Face hub"
    )
    revision: str | None = Field(None, description="of a model of the hub: a commit, branch or tag")
    architecture: dict[str, Any] | None = Field(
        None,
        description="instead of name: a fresh model by the keys of its config.json, model_type "
        "among them",
    )
    tied: bool = Field(False, description="the head's matrix is the table of the space")
    new_mask: bool = Field(
        False,
        description="of a pretrained model that knows no mask: the mask's row begins as the mean "
        "of the others",
    )
    lora: Lora | None = Field(
        None, description="train adapters of low rank alone, the model's own weights stay"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.name is None) == (self.architecture is None):
            raise ValueError("give name (a pretrained model) or architecture (a fresh one)")
        if self.name is None and self.revision is not None:
            raise ValueError("revision goes with name")
        if self.name is None and self.new_mask:
            raise ValueError("new_mask goes with name: a fresh model's rows are all new")
        if self.architecture is not None:
            self._check(self.architecture)
        return self

    def _check(self, architecture: dict[str, Any]) -> None:
        encoders.check_kind(architecture, "masked")


class HfDecoder(HfModel):
    """A decoder of transformers, made to see what ``attention`` says."""

    attention: Literal["full", "causal", "block"] = Field(
        "full",
        description="full: every position sees all; causal: itself and those before it; block: "
        "its own block and those before it. Tried out once, and refused if it is otherwise",
    )
    block: Size | None = Field(None, description="positions of a block, with attention: block")
    shift: bool = Field(
        False,
        description="position i is predicted at i - 1, as in next-token training (Dream); "
        "position 0 keeps its own",
    )

    @model_validator(mode="after")
    def _blocks(self) -> Self:
        if (self.attention == "block") != (self.block is not None):
            raise ValueError("block goes with attention: block, and only with it")
        return self

    def _check(self, architecture: dict[str, Any]) -> None:
        encoders.check_kind(architecture, "causal")

    def capabilities(self) -> frozenset[str]:
        return frozenset({"blocks"} if self.attention == "block" else ())


class WordEmbeddings(Config):
    """The word embeddings of an encoder of transformers, fixed."""

    name: str | None = Field(
        None, description="a folder here, or a model's name on the Hugging Face hub"
    )
    revision: str | None = Field(None, description="of a model of the hub: a commit, branch or tag")
    dim: Size | None = Field(
        None, description="instead of name: random points of so many channels, to compare with"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.name is None) == (self.dim is None):
            raise ValueError("give name (an encoder's word embeddings) or dim (random points)")
        if self.name is None and self.revision is not None:
            raise ValueError("revision goes with name")
        return self

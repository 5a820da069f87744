"""Options that parts of several plugins share. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dlmkit.plugin import Config, Share, Size


class Nothing(Config):
    """No options."""


class Dropping(Config):
    """Of objectives: how often what is given is not told."""

    conditioning_dropout: Share = Field(
        0.0, description="share of rows without clean embeddings, for classifier-free guidance"
    )


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


class Normalised(Config):
    """Embeddings are normalised at every use, so their size cannot grow or collapse."""

    dim: Size = Field(256, description="d, channels of an embedding (CDCD: 256)")
    init_std: PositiveFloat = Field(
        1e-3, description="of the raw table (CDCD: 0.001; large values learn slowly)"
    )
    start: Literal["random", "counts"] = Field(
        "random",
        description="where the table begins: at random, or so that tokens with the same neighbours "
        "in the training text lie close together",
    )
    counts: Counts | None = Field(None, description="with start: counts, how they are counted")
    trained: bool = Field(True, description="false: the table stays as it begins")
    head: Literal["tied", "untied"] = Field(
        "tied", description="logits by the embeddings themselves, or by a matrix of their own"
    )
    head_width: Size | None = Field(
        None, description="channels the untied head reads; usually the network's width"
    )

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, given: Any) -> Any:
        """Fill in how neighbours are counted, so that a resolved recipe shows it."""
        if isinstance(given, dict) and given.get("start") == "counts":
            return {**given, "counts": {} if given.get("counts") is None else given["counts"]}
        return given

    @model_validator(mode="after")
    def _head(self) -> Self:
        if self.counts is not None and self.start != "counts":
            raise ValueError("counts goes with start: counts, and only with it")
        if (self.head == "untied") != (self.head_width is not None):
            raise ValueError("head_width goes with head: untied, and only with it")
        return self

    def capabilities(self) -> frozenset[str]:
        return frozenset({"tied"} if self.head == "tied" else ())


class LossTable(Config):
    """Of :class:`dlmkit.core.warp.LossWarped`: a table of losses by noise level."""

    bins: Size = Field(100, description="bins of noise levels")
    memory: PositiveFloat = Field(50.0, description="samples that a bin remembers")
    fade: PositiveInt = Field(200, description="updates over which uniform draws fade")

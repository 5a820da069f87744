"""Options of the components of `text`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from dlmkit import Config


class Tokens(Config):
    """How text becomes ids. The vocabulary holds only what occurs in the training text."""

    kind: Literal["characters", "pieces"] = Field(
        "characters", description="one id a character, or byte-pair pieces trained on the text"
    )
    size: PositiveInt | None = Field(
        None, description="V of pieces, <pad> and <unk> included; characters need none"
    )
    lowercase: bool = Field(True, description="lower-case everything")
    fold: bool = Field(
        True, description="write accents, curly quotes, dashes and ligatures in plain ASCII"
    )
    rare: float = Field(
        1e-5,
        ge=0.0,
        lt=1.0,
        description="drop characters that make up less than this share of the training text",
    )

    @model_validator(mode="after")
    def _size(self) -> Self:
        if (self.kind == "pieces") != (self.size is not None):
            raise ValueError("size goes with kind: pieces, and only with it")
        return self


class Source(Config):
    """What every text source shares."""

    tokenizer: Tokens = Field(Tokens(), description="how text becomes ids")
    validation: float = Field(
        0.05, gt=0.0, lt=1.0, description="share of the documents held out, chosen by their hash"
    )


class KingJames(Source):
    """The King James Bible by paragraphs: formulaic, so a small model reads well soonest."""


class Reviews(Source):
    """Film reviews: the nearest to text from the web."""


class TextFiles(Source):
    """Your own text."""

    paths: list[Path] = Field(
        min_length=1, description="UTF-8 files, or folders whose *.txt files are read in order"
    )
    document: Literal["paragraph", "line", "file"] = Field(
        "paragraph", description="what a document is: paragraphs end at blank lines"
    )


class NgramJudge(Config):
    """A Kneser-Ney model fitted to the training text."""

    order: PositiveInt = Field(6, description="longest n-gram")
    unit: Literal["characters", "tokens"] = Field(
        "characters", description="what it counts; characters compare models of any vocabulary"
    )


class NgramEntropy(Config):
    """Diversity of pooled n-grams, and real words."""

    unit: Literal["characters", "tokens", "words"] = Field(
        "characters", description="what the n-grams are made of"
    )


class Distinct(Config):
    """Variety of pooled n-grams."""

    unit: Literal["characters", "tokens", "words"] = Field(
        "words", description="what the n-grams are made of"
    )
    orders: list[PositiveInt] = Field([1, 2, 3, 4], min_length=1, description="every n")


class NgramDistance(Config):
    """Distance of pooled n-grams from held-out text."""

    unit: Literal["characters", "tokens", "words"] = Field(
        "words", description="what the n-grams are made of"
    )
    orders: list[PositiveInt] = Field([1, 2, 3], min_length=1, description="every n")

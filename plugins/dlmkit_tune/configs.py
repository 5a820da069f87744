"""Options of the components of `tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from dlmkit import Config
from dlmkit.core.options import Dropping
from dlmkit.plugin import Size
from dlmkit_hf.configs import HfDecoder, Lora
from dlmkit_masked.configs import Draw
from dlmkit_text.configs import TextTokens


class Adapting(Dropping):
    """The masked objective, while attention opens."""

    anneal: PositiveInt | None = Field(
        None,
        description="steps over which attention opens from causal to what network.attention says: "
        "what stands ahead is seen with a chance that rises from 0 to 1 (DiffuLLaMA, 2410.17891); "
        "default: open from the first step",
    )


class Drafter(HfDecoder):
    """A causal decoder, frozen, whose adapters act in mask slots alone."""

    attention: Literal["causal"] = Field("causal", description="as next-token training left it")
    shift: Literal[True] = Field(True, description="as next-token training left it")
    slots: Size = Field(
        1,
        description="mask slots of a block, of slots + 1 tokens: the decoder itself says the "
        "first, and a slot each of the others",
    )
    sequential: bool = Field(
        False,
        description="a slot says its token given the token before it, by two layers ahead of the "
        "decoder's head; else of what stands before the block alone",
    )
    lora: Lora = Field(default_factory=Lora, description="the adapters")

    @model_validator(mode="after")
    def _stays(self) -> Self:
        if self.lora.words:
            raise ValueError("lora.words trains the table that tokens are read from as well")
        return self


class Drafting(Config):
    """What slots are to say."""

    soft: bool = Field(
        True,
        description="what the decoder itself says of the next token, behind all tokens before it; "
        "or the text's token alone",
    )


class Verifying(Config):
    """Texts of the decoder itself, several tokens per pass."""

    draw: Draw = Field(
        default_factory=Draw, description="of the decoder's distributions and of the drafts'"
    )


class Conversations(Config):
    """Questions and answers, or conversations of several turns; only answers are learned."""

    paths: list[Path] | None = Field(
        None,
        description="files of JSON lines, one record per line; a list, or one path (default: sixty "
        "made-up questions that ship, to try things with)",
    )
    dataset: str | None = Field(
        None,
        description="instead of paths: a dataset that the library datasets reads, by name or path",
    )
    config: str | None = Field(None, description="of a dataset: its configuration")
    split: str | None = Field(None, description="of a dataset: its split (default: train)")
    revision: str | None = Field(None, description="of a dataset of the hub: a commit or branch")
    messages: str | None = Field(
        None,
        description="the column of a list of {role, content} (default: messages, unless prompt "
        "and response are given)",
    )
    prompt: str | None = Field(None, description="instead of messages: the column of questions")
    response: str | None = Field(None, description="with prompt: the column of answers")
    answers: Literal["each", "last"] = Field(
        "each",
        description="each answer of a conversation is a text of its own, after all that was said "
        "before it; or the last one alone",
    )
    padding: Literal["ignored", "learned"] = Field(
        "ignored",
        description="what follows an answer in its row: nothing, which no position sees; or "
        "end-of-text, which is learned like the answer (LLaDA, 2502.09992)",
    )
    long: Literal["leave-out", "truncate"] = Field(
        "leave-out", description="what becomes of a text that is longer than a row"
    )
    tokenizer: TextTokens = Field(
        TextTokens(kind="bytes", size=512),
        description="how text becomes ids; the chat template of a pretrained one is used, and "
        "without one turns stand on lines of their own",
    )
    validation: float = Field(
        0.05, gt=0.0, lt=1.0, description="share of the conversations held out, by their hash"
    )
    most: Size | None = Field(None, description="at most so many conversations (default: all)")

    @field_validator("paths", mode="before")
    @classmethod
    def _one(cls, given: Any) -> Any:
        return [given] if isinstance(given, str | Path) else given

    @model_validator(mode="after")
    def _source(self) -> Self:
        if self.paths is not None and self.dataset is not None:
            raise ValueError("give paths (JSON lines) or dataset, not both")
        if self.dataset is None:
            for key in ("config", "split", "revision"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} goes with dataset")
        if (self.prompt is None) != (self.response is None):
            raise ValueError("prompt and response go together")
        if self.prompt is not None and self.messages is not None:
            raise ValueError("give messages, or prompt and response")
        return self


class PackedConversations(Conversations):
    """The same, several texts in a row, none of which sees another."""

    padding: Literal["ignored"] = Field(
        "ignored", description="what is left of a row is seen by nothing"
    )

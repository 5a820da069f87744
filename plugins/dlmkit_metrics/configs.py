"""Options of the components of `metrics`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from dlmkit import Config
from dlmkit.plugin import Size

Unit = Literal["characters", "tokens", "words"]


class Pretrained(Config):
    """A transformers model that reads texts."""

    revision: str | None = Field(None, description="commit, branch or tag, of a name on the hub")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="what its weights are loaded as, whatever they are saved as"
    )
    batch_size: Size = Field(
        16, description="texts side by side; the last batch may be smaller, none is dropped"
    )
    device: str = Field("cpu", description="where it runs")


class ArNll(Pretrained):
    """Likelihood under a causal language model."""

    judge: str = Field(description="a from_pretrained folder, or a name on the Hugging Face hub")
    context: Size | None = Field(
        None, description="longest text in the judge's tokens, the rest is cut (null: its limit)"
    )
    begin: Literal["none", "bos", "eos"] = Field(
        "none", description="the judge's token put before every text; none: its first is unscored"
    )
    specials: Literal["text", "parse"] = Field(
        "text", description="a special token that a text spells out: ordinary text, or the token"
    )
    retokenise: bool = Field(
        True,
        description="texts are cut by the judge's tokenizer; false: it gets the ids that the model "
        "wrote, which needs one and the same vocabulary",
    )
    orders: list[Size] = Field([1, 2, 3, 4], min_length=1, description="n of distinct_n")


class Mauve(Pretrained):
    """MAUVE (2102.01454) between texts and held-out text, on features of an encoder."""

    encoder: str = Field(description="a from_pretrained folder, or a name on the hub")
    context: Size = Field(256, description="longest text in the encoder's tokens")
    scale: PositiveFloat = Field(5.0, description="c, the scaling factor of the divergences")
    buckets: Size | None = Field(
        None, description="clusters (null: a tenth of the texts on each side, at least 2)"
    )
    seed: PositiveInt = Field(25, description="of the clustering")


class Units(Config):
    """Texts cut into units."""

    unit: Unit = Field("words", description="what the n-grams are made of")


class SelfBleu(Units):
    """BLEU of every text against all others (1802.01886)."""

    order: Size = Field(4, description="longest n-gram, all weighted equally")
    epsilon: float = Field(
        0.1, ge=0.0, description="matches that an order without any is given; 0: the text scores 0"
    )


class Zipf(Units):
    """The slope of log frequency over log rank."""

    unit: Unit = Field("words", description="what is counted")
    top: Size = Field(5000, description="ranks that the line is fitted to")


class Repetition(Units):
    """How texts repeat themselves."""

    orders: list[Size] = Field([1, 2, 3, 4], min_length=1, description="every n")
    phrase: Size = Field(2, description="shortest phrase of a loop")
    times: int = Field(3, ge=2, description="how often it must stand at the end of a text")


class Copied(Units):
    """How much of a text stands in the training text."""

    unit: Unit = Field("characters", description="what a window is counted in")
    window: Size = Field(30, description="units of a stretch of text that counts as copied")

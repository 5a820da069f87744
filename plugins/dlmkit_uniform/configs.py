"""Options of the components of `uniform`."""

from __future__ import annotations

from pydantic import Field

from dlmkit import Config
from dlmkit.core.options import Dropping
from dlmkit.plugin import Size


class States(Config):
    """Token ids, none of them a mask."""

    dim: Size = Field(768, description="channels that the network reads of a token")
    size: Size | None = Field(
        None, description="tokens of a released model (default: the tokenizer's tokens)"
    )


class Udlm(Dropping):
    """UDLM's bound, and DUO's curriculum before it."""

    curriculum: int = Field(
        0,
        ge=0,
        description="first steps in which mixtures of tokens are read, ever closer to one of them "
        "(DUO: 200,000 of 1,000,000 in its code); 0: none",
    )


class Posterior(Config):
    """How texts end."""

    greedy_tail: bool = Field(
        False, description="the last step takes the likeliest tokens (DUO), where others are drawn"
    )


class PredictorCorrector(Posterior):
    """How much is noised again at each step."""

    eta: float = Field(
        0.1, ge=0.0, le=1.0, description="0: the ancestral sampler, 1: all noise is drawn anew"
    )

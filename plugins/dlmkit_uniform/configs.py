"""Options of the components of `uniform`."""

from __future__ import annotations

from pydantic import Field

from dlmkit import Config
from dlmkit.plugin import Size


class Nothing(Config):
    """No options."""


class Tokens(Config):
    """Token ids, none of them a mask."""

    dim: Size = Field(768, description="channels that the network reads of a token")
    size: Size | None = Field(
        None, description="tokens of a released model (default: the tokenizer's tokens)"
    )


class PredictorCorrector(Config):
    """How much is noised again at each step."""

    eta: float = Field(
        0.1, ge=0.0, le=1.0, description="0: the ancestral sampler, 1: all noise is drawn anew"
    )

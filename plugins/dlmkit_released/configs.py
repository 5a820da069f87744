"""Options of the components of `released`."""

from __future__ import annotations

from pydantic import Field

from dlmkit import Config
from dlmkit.plugin import Size


class Dit(Config):
    """The transformer of SEDD, MDLM, DUO and BD3-LM; its width is the space's."""

    blocks: Size = Field(12, description="transformer blocks (MDLM: 12)")
    heads: Size = Field(12, description="attention heads (MDLM: 12)")
    features: Size = Field(128, description="channels of the time embedding (MDLM: 128)")
    time: bool = Field(False, description="reads the noise level; without, zero (MDLM: false)")
    block: Size | None = Field(
        None, description="positions of a block, which sees itself and those before it (BD3-LM)"
    )

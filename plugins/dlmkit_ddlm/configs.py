"""Options of the components of `ddlm`."""

from __future__ import annotations

from pydantic import Field

from dlmkit import Config
from dlmkit.plugin import Size


class Span(Config):
    """Given positions come in runs of a fixed length (our definition)."""

    span: Size = Field(4, description="positions of one run")

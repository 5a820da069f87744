"""Options of the components of `ddlm`."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from dlmkit import Config


class Span(Config):
    """Given positions come in runs of a fixed length (our definition)."""

    span: PositiveInt = Field(4, description="positions of one run")

"""Options of the components of `grammar`."""

from __future__ import annotations

from pydantic import Field

from dlmkit import Config
from dlmkit.plugin import Size


class GrammarRows(Config):
    """Rows of the toy grammar."""

    rows: Size | None = Field(
        None, description="repeat this many training rows for ever; default: never repeat one"
    )


class GrammarMetric(Config):
    """The exact metric of the toy grammar."""

    floor: float = Field(
        0.01,
        gt=0.0,
        lt=1.0,
        description="weight of uniformly random words in the likelihood of wrong sentences",
    )

"""Options of the components of `mdlm`. What the paper states is named; the rest is our choice."""

from __future__ import annotations

from pydantic import Field

from dlmkit import Config
from dlmkit.plugin import Size


class Unmasking(Config):
    """Which masked tokens are uncovered at a step."""

    window: Size | None = Field(
        None,
        description="uncover stretches of so many positions, counted from a row's first, one after "
        "the other, each at an even share of the steps (BD3-LM: its block); default: anywhere",
    )


class LogLinear(Config):
    """The share of masked tokens rises linearly in time."""

    floor: float = Field(
        1e-3, gt=0.0, lt=0.1, description="share still clean at t = 1, and the lowest t (MDLM)"
    )

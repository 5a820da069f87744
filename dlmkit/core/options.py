"""Options that parts of several plugins share. Imports no torch."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from dlmkit.plugin import Config, Size


class Counts(Config):
    """How neighbours are counted, for :func:`dlmkit.core.counts.start_from_counts`."""

    window: Size = Field(
        5,
        description="neighbours up to so many positions away count, to the left and to the right; "
        "one that is k away counts 1 / k",
    )
    tokens: PositiveInt = Field(
        2_000_000,
        description="training tokens that are read and counted; a shorter text is read again",
    )
    smoothing: float = Field(
        0.75,
        gt=0.0,
        le=1.0,
        description="power of the neighbours' frequencies (Levy and others 2015: 0.75); 1 changes "
        "nothing, less makes rare neighbours tell less",
    )

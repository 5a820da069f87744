"""Options of the trackers."""

from __future__ import annotations

from pydantic import Field

from dlmkit import Config


class TensorBoard(Config):
    """Event files in the run folder."""

    folder: str = Field("tensorboard", description="inside the run folder")


class Trackio(Config):
    """A local Trackio project; nothing is sent anywhere."""

    project: str = Field("dlmkit", description="the project that lists the run")
    name: str | None = Field(None, description="the run's name; default: the run folder's")

"""What the plugin `trackers` provides."""

from __future__ import annotations

from collections.abc import Sequence

from dlmkit import Component, hookimpl
from dlmkit_trackers import configs

api = 2


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            kind="tracker",
            name="tensorboard",
            summary="TensorBoard event files in the run folder (extra: tensorboard)",
            config=configs.TensorBoard,
            target="dlmkit_trackers.tensorboard:TensorBoard",
        ),
        Component(
            kind="tracker",
            name="trackio",
            summary="a local Trackio project (extra: trackio)",
            config=configs.Trackio,
            target="dlmkit_trackers.trackio:Trackio",
        ),
    ]

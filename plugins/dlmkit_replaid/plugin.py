"""What the plugin `replaid` provides. What is published is named; the rest is our choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from dlmkit import Component, hookimpl
from dlmkit.core.options import LossTable
from dlmkit.plugin import Part, PartOf

api = 2


class LeastVariance(LossTable):
    """Another schedule's levels, drawn so that the bound's estimate varies least."""

    base: Annotated[Part, PartOf("schedule")] = Field(
        description="the schedule whose levels these are; where it would draw them is no matter",
        examples=[{"use": "mdlm:log-linear"}],
    )
    memory: float = Field(200.0, gt=0.0, description="samples that a bin remembers")
    mix: float = Field(0.05, gt=0.0, le=1.0, description="share of the base's own draws that stays")


@hookimpl
def register_components() -> Sequence[Component]:
    return [
        Component(
            "schedule",
            "least-variance",
            "the levels of another schedule, where a likelihood bound varies least",
            LeastVariance,
            "dlmkit_replaid.schedule:LeastVariance",
            requires=frozenset({"likelihood-bound"}),
            example={"bins": 20},
        )
    ]

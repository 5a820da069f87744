"""Options of the components of `plaid`. What is published is named; the rest is our choice."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from dlmkit import Config
from dlmkit.core.options import Dropping
from dlmkit.plugin import Size


class Monotone(Config):
    """Where the noise levels start, and the size of the network between them."""

    gamma_min: float = Field(
        -3.0, description="lowest log(sigma^2 / alpha^2), learned (Plaid: -3 at norm 1)"
    )
    gamma_max: float = Field(
        6.0, description="highest, learned (Plaid: 6 at norm 1; add log d for norm sqrt(d))"
    )
    units: Size = Field(1024, description="tanh units of the monotone network (Plaid: 1024)")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.gamma_min >= self.gamma_max:
            raise ValueError(
                f"gamma_min ({self.gamma_min}) must lie below gamma_max ({self.gamma_max})"
            )
        return self


class Bound(Dropping):
    """Plaid's loss."""

    self_conditioning: float = Field(
        0.25, ge=0.0, le=1.0, description="share of rows that see a first prediction (Plaid)"
    )
    reconstruction: float = Field(
        0.125, gt=0.0, lt=1.0, description="share of rows at the lowest noise level"
    )
    ramp: PositiveInt = Field(
        5000, description="steps over which the output prior rises (Plaid); train for more"
    )

"""Options of the components of `samplers`."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from dlmkit import Config, part_of


class Nothing(Config):
    """No options."""


class Ancestral(Config):
    """Part of each step's noise is removed and drawn afresh."""

    eta: float = Field(
        1.0, ge=0.0, le=1.0, description="share of fresh noise: 0 is Euler, 1 is DDPM's posterior"
    )


class Karras(Config):
    """EDM's grid."""

    rho: PositiveFloat = Field(7.0, description="how closely points crowd at low noise (EDM: 7)")


class Threshold(Config):
    """Halts a row whose statistic falls below a threshold."""

    threshold: PositiveFloat = Field(
        description="in the statistic's unit (nats a position)", examples=[0.1]
    )


class FixedStep(Config):
    """Halts every row after the same number of steps."""

    step: PositiveInt = Field(description="grid steps to take", examples=[3])


_FIXED = {"use": "samplers:fixed", "with": {"step": 3}}
_ENTROPY = {"use": "samplers:entropy", "with": {"threshold": 0.1}}


class Rules(Config):
    """Several exit rules as one."""

    rules: list[part_of("exit")] = Field(
        min_length=1, description="the rules", examples=[[_FIXED, _ENTROPY]]
    )


class Patience(Config):
    """A rule must hold several steps in a row."""

    rule: part_of("exit") = Field(description="the rule that must hold", examples=[_ENTROPY])
    steps: PositiveInt = Field(2, description="steps in a row")


class After(Config):
    """A rule that counts only from some step on."""

    rule: part_of("exit") = Field(description="the rule that then counts", examples=[_ENTROPY])
    step: PositiveInt = Field(description="grid steps to take before it may halt", examples=[4])


class ScoreTemperature(Config):
    """The score divided by a temperature."""

    temperature: PositiveFloat = Field(
        1.0, description="below 1 sharpens; CDCD's useful range is about 0.8 to 1"
    )


class ClassifierFree(Config):
    """Guidance towards the given tokens."""

    scale: float = Field(
        2.0, ge=0.0, description="0 ignores what is given, 1 changes nothing, above 1 exaggerates"
    )

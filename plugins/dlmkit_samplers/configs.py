"""Options of the components of `samplers`."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from dlmkit import Config, part_of
from dlmkit.plugin import ComparedWith, Size


class Ancestral(Config):
    """Part of each step's noise is removed and drawn afresh."""

    eta: float = Field(
        1.0, ge=0.0, le=1.0, description="share of fresh noise: 0 is Euler, 1 is DDPM's posterior"
    )


class EDMChurn(Config):
    """EDM's stochastic sampler. Its values for images: 40, 0.05, 50 and 1.003."""

    s_churn: float = Field(10.0, ge=0.0, description="noise added in all; 0 is Heun (our choice)")
    s_tmin: float = Field(0.0, ge=0.0, description="lowest noise-to-signal ratio to add it at")
    s_tmax: float = Field(
        math.inf, ge=0.0, allow_inf_nan=True, description="highest noise-to-signal ratio"
    )
    s_noise: float = Field(1.0, ge=0.0, description="standard deviation of the noise added")


class Multistep(Config):
    """Higher order from predictions that were already made."""

    max_growth: PositiveFloat = Field(
        4.0, description="a log step longer than this many times the one before is of lower order"
    )


class MultistepSDE(Multistep):
    """Second order, with fresh noise."""

    eta: float = Field(1.0, ge=0.0, description="share of fresh noise: 0 is dpm-2m, 1 the SDE")


class Karras(Config):
    """EDM's grid."""

    rho: PositiveFloat = Field(7.0, description="how closely points crowd at low noise (EDM: 7)")


class Entropic(Config):
    """Points where the cross-entropy falls."""

    log_uniform_mix: float = Field(
        0.05, gt=0.0, le=1.0, description="share of points spread log-uniformly"
    )


class Fitted(Entropic):
    """Points where the entropy of a recorded run fell."""

    path: str = Field(
        description="a trace, or a JSON or safetensors file with 'sigma' (T noise-to-signal "
        "ratios) and 'entropy' (T values, or rows of T)"
    )


class Entropy(Config):
    """Halts a row whose mean entropy falls below a threshold."""

    threshold: Annotated[PositiveFloat, ComparedWith("entropy")] = Field(
        description="in nats per position", examples=[0.1]
    )


class KullbackLeibler(Config):
    """Halts a row whose mean KL to the previous step falls below a threshold."""

    threshold: Annotated[PositiveFloat, ComparedWith("kl")] = Field(
        description="in nats per position", examples=[0.1]
    )


class Jeffreys(Config):
    """Halts a row whose mean Jeffreys divergence to the previous step falls below a threshold."""

    threshold: Annotated[PositiveFloat, ComparedWith("jeffreys")] = Field(
        description="in nats per position", examples=[0.1]
    )


class AtFraction(Config):
    """Halts every row at the same share of the grid."""

    fraction: Annotated[float, ComparedWith("fraction")] = Field(
        gt=0.0, le=1.0, description="share of the grid's points to step from", examples=[0.5]
    )


class AtLevel(Config):
    """Halts every row at the same noise level."""

    sigma: Annotated[PositiveFloat, ComparedWith("sigma")] = Field(
        description="noise-to-signal ratio, sigma / alpha", examples=[1.0]
    )


class Margin(Config):
    """Halts a row whose likeliest tokens lead clearly."""

    threshold: Annotated[float, ComparedWith("margin")] = Field(
        gt=0.0,
        lt=1.0,
        description="mean lead of the likeliest token, in probability",
        examples=[0.9],
    )


class Falling(Config):
    """Halts a row whose likeliest tokens lead by a threshold that falls with its progress."""

    threshold: PositiveFloat = Field(
        description="at the row's first step (Prophet: a gap of 7.5 nats)", examples=[7.5]
    )
    end: float = Field(
        1 / 3, ge=0.0, le=1.0, description="share of it that is enough at the last (Prophet: 1/3)"
    )
    shape: Literal["thirds", "linear", "cosine"] = Field(
        "thirds",
        description="in three steps (Prophet), or smoothly (SchED)",
    )
    statistic: Literal["gap", "margin"] = Field("gap", description="what must reach it")


class TokenSwitches(Config):
    """Halts a row whose likeliest tokens have stopped changing."""

    most: Annotated[float, ComparedWith("switches")] = Field(
        0, ge=0, description="s, changed tokens of the row allowed at a step"
    )
    steps: Size = Field(3, description="k, steps in a row")


class StableAndConfident(Config):
    """Halts a row that is both."""

    threshold: Annotated[PositiveFloat, ComparedWith("entropy")] = Field(
        description="mean entropy in nats per position (DiffusionGemma: 0.005)", examples=[0.005]
    )
    steps: Size = Field(1, description="steps in a row without a changed token (there: 1)")


class FixedStep(Config):
    """Halts every row after the same number of steps."""

    step: Size = Field(description="grid steps to take", examples=[3])


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
    steps: Size = Field(2, description="steps in a row")


class After(Config):
    """A rule that counts only from some step on."""

    rule: part_of("exit") = Field(description="the rule that then counts", examples=[_ENTROPY])
    step: Size = Field(description="grid steps to take before it may halt", examples=[4])


class ScoreTemperature(Config):
    """The score divided by a temperature."""

    temperature: PositiveFloat = Field(
        1.0, description="below 1 sharpens; CDCD tries 0.5, where its texts collapse, to 1"
    )


class SoftmaxTemperature(Config):
    """The logits divided by a temperature."""

    temperature: PositiveFloat = Field(1.0, description="below 1 sharpens")


class ClassifierFree(Config):
    """Guidance towards the given tokens."""

    scale: float = Field(
        2.0, ge=0.0, description="0 ignores what is given, 1 changes nothing, above 1 exaggerates"
    )


class InitialNoise(Config):
    """The first x times a factor."""

    scale: float = Field(
        1.0, ge=0.0, description="1 is the prior; by its reviews DDLM's sweep found 0.9 best"
    )


class Below(Config):
    """Projects the predicted x0."""

    below: float = Field(
        math.inf,
        ge=0.0,
        allow_inf_nan=True,
        description="only at noise-to-signal ratios up to this one",
    )

"""What the plugin `elf` provides. What is published is named; the rest is our choice."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, NonNegativeFloat, PositiveFloat

from dlmkit import Component, Config, hookimpl
from dlmkit.core.options import Dropping
from dlmkit.plugin import Recipe, Share

api = 2


class LogitNormal(Config):
    """How much of a position is text, by a normal variable."""

    mean: float = Field(-1.5, description="of the logit of the text's share (ELF)")
    std: PositiveFloat = Field(0.8, description="of that logit (ELF)")
    noise: PositiveFloat = Field(2.0, description="standard deviation of pure noise (ELF)")
    clip: float = Field(1e-6, gt=0.0, lt=0.1, description="share left out at either end (ELF: 0)")


class XPrediction(Dropping):
    """ELF's two losses, of rows apart."""

    self_conditioning: Share = Field(0.5, description="rows that see a first prediction (ELF)")
    floor: PositiveFloat = Field(0.05, description="least share of noise that divides (ELF)")
    decoder: float = Field(0.2, gt=0.0, lt=1.0, description="rows that are decoded (ELF)")
    decoder_mean: float = Field(0.8, description="of the logit of their text's share (ELF)")
    decoder_std: PositiveFloat = Field(0.8, description="of that logit (ELF)")
    decoder_noise: PositiveFloat = Field(5.0, description="of their pure noise (ELF)")


class Scale(Config):
    """Guidance by what the model has said before."""

    scale: float = Field(3.0, description="1 changes nothing (ELF: 3)")


class Renoising(Config):
    """ELF's stochastic sampler."""

    gamma: NonNegativeFloat = Field(1.5, description="0 is Euler's (ELF: 1.5 at 32 steps, 1 at 64)")
    noise: PositiveFloat = Field(2.0, description="the schedule's: of pure noise (ELF)")


@hookimpl
def register_components() -> Sequence[Component]:
    gaussian = frozenset({"gaussian"})
    return [
        Component(
            "schedule",
            "logit-normal",
            "a straight line from text to noise; the logit of a time is normal",
            LogitNormal,
            "dlmkit_elf.model:LogitNormal",
        ),
        Component(
            "objective",
            "x-prediction",
            "the error of predicted embeddings; some rows are decoded by the same network",
            XPrediction,
            "dlmkit_elf.model:XPrediction",
            provides=frozenset({"conditioning-dropout"}),
            requires=gaussian | {"tied"},
            expected_failures={
                name: "it answers with embeddings, and the kit's networks with logits"
                for name in ("oracle-has-no-loss", "given-does-not-count")
            },
        ),
        Component(
            "guidance",
            "self-conditioning",
            "further from what is said alone to what is said after a first prediction",
            Scale,
            "dlmkit_elf.sampling:SelfConditioning",
        ),
        Component(
            "sampler",
            "renoising",
            "back towards noise by a share of every step, then Euler's step",
            Renoising,
            "dlmkit_elf.sampling:Renoising",
            requires=gaussian,
        ),
    ]


@hookimpl
def register_recipes() -> Sequence[Recipe]:
    return Recipe.beside(__file__, "elf_grammar", "elf_words")

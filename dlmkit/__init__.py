"""dlmkit: compose, train, sample and measure diffusion language models from small parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlmkit.plugin import Component, Config, Part, hookimpl, part_of
from dlmkit.threads import wait_passively

if TYPE_CHECKING:
    from dlmkit.models import Model

__version__ = "0.1.0"

__all__ = ["Component", "Config", "Part", "__version__", "compose", "hookimpl", "load", "part_of"]

wait_passively()  # here, since every way in passes here, and before torch is loaded


def compose(**recipe: Any) -> Model:
    """A fresh model of a recipe given as keywords: ``compose(data="grammar", ...).train()``.

    Imports torch; importing dlmkit does not.
    """
    from dlmkit import models

    return models.compose(**recipe)


def load(reference: str, *overrides: str, device: str = "cpu") -> Model:
    """The model of a run or checkpoint, to sample from: ``load("runs/x").sample(n=4)``.

    ``overrides`` are sampling keys of its recipe, such as ``"sampler.use=ancestral"``. Imports
    torch; importing dlmkit does not.
    """
    from dlmkit.models import load_model

    return load_model(reference, overrides, device=device)

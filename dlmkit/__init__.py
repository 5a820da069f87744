"""dlmkit: compose, train, sample and measure diffusion language models from small parts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlmkit.plugin import Component, Config, Part, hookimpl, part_of
from dlmkit.threads import wait_passively
from dlmkit.version import __version__

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from dlmkit.model import Model
    from dlmkit.registry.lookup import PluginInfo
    from dlmkit.training.loop import StepRecord

__all__ = [
    "Component",
    "Config",
    "Part",
    "__version__",
    "compose",
    "curves",
    "hookimpl",
    "load",
    "load_plugin",
    "part_of",
]

wait_passively()  # here, since every way in passes here, and before torch is loaded


def compose(**recipe: Any) -> Model:
    """A fresh model of a recipe given as keywords: ``compose(data="grammar", ...).train()``.

    Imports torch; importing dlmkit does not.
    """
    from dlmkit import model as models

    return models.compose(**recipe)


def load(
    reference: str | Path,
    *overrides: str,
    weights: Literal["ema", "raw"] | None = None,
    device: str | torch.device = "cpu",
) -> Model:
    """The model of a run, a checkpoint, an exported folder or a shipped name, or of a recipe with
    nothing to train: ``load("runs/x").sample(n=4)``.

    ``overrides`` are sampling keys of its recipe, such as ``"sampler.use=ancestral"``; ``weights``
    the moving average, which is the default, or the last ones. Imports torch; importing dlmkit
    does not.
    """
    from dlmkit import devices
    from dlmkit.errors import UsageError
    from dlmkit.model import open_model
    from dlmkit.recipe.short import Short

    if weights not in (None, "ema", "raw"):
        raise UsageError(f"weights is {weights!r}; expected 'ema' or 'raw'")
    words = [Short.of(word, repr(word)) for word in overrides]
    where = devices.choose(str(device), "device")
    return open_model(str(reference), words, weights=weights, device=where)


def load_plugin(path: str | Path) -> PluginInfo:
    """Take the plugin in the Python file ``path``, as ``dlmkit --plugin FILE`` does, and say what
    it provides: before ``compose`` or ``load``, for this process and those that it starts.

    Its name is the file's without ``.py``. Called again, it takes the file as it is now; what was
    built before stays what it was. Raises UsageError if the file cannot be read or its name cannot
    be a plugin's, and PluginError, which says why, if it fails to load. Imports no torch.
    """
    from dlmkit.registry.lookup import load_file

    return load_file(path)


def curves(source: str | Path | Iterable[StepRecord]) -> Figure:
    """A figure of a run's curves, by its folder, or of the records that ``Model.train`` gave.

    Loss by step and, where the run was validated, the context gain. In a notebook it shows itself;
    ``curves("runs/x").savefig("x.png")`` writes it. Imports matplotlib, which importing dlmkit
    does not.
    """
    from dlmkit.training.curves import drawn

    return drawn(source)

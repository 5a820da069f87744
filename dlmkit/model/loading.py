"""A model of a recipe given as keywords, or by its reference: a folder, a name, the hub's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dlmkit import devices, files, folders
from dlmkit.errors import CheckpointError, PluginError, RecipeError, UsageError
from dlmkit.model.model import Model, key_of, refuse_trained_keys
from dlmkit.plugin import KINDS
from dlmkit.recipe.assemble import assemble, assemble_sampling
from dlmkit.recipe.load import load_recipe, resolve_text, resolve_values
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.recipe.shelf import SUFFIXES, shipped
from dlmkit.registry.lookup import Registry
from dlmkit.released.fetch import fetched, hub_name
from dlmkit.released.fill import refill
from dlmkit.released.opening import is_released, needs_tokenizer, open_released
from dlmkit.training import origin
from dlmkit.training.base import start_from
from dlmkit.training.checkpoint import find, saved_step
from dlmkit.training.state import (
    RECIPE,
    Weights,
    base_of,
    load_adapters,
    load_weights,
    stored_dtype,
    weights_in,
)

BASE_KEYS = ("network.with.name", "network.with.revision")
"""Where the model is that adapters stand beside."""


def compose(device: torch.device | str = "cpu", **recipe: Any) -> Model:
    """A fresh model of a recipe given as keywords, as in a recipe file.

    A part is its name, or ``{"use": name, "with": options}``; kinds of which there may be several
    take a list. Raises RecipeError with every problem of the recipe, each by its key, and
    DataError if its text cannot be had.
    """
    where = devices.choose(str(device), "device")
    registry = Registry.load()
    whole = {key: _parts(value) if key in KINDS else value for key, value in recipe.items()}
    config = resolve_values(whole, "compose", (), registry).config
    assembly = assemble(config, registry, device=where)
    start_from(assembly)
    assembly.objective.eval()
    return Model(None, assembly, assemble_sampling(assembly))


def _parts(value: Any) -> Any:
    """A part by its name alone, or several in a list, as recipes write them."""
    if isinstance(value, list | tuple):
        return [_parts(item) for item in value]
    return {"use": value} if isinstance(value, str) else value


def load_model(
    reference: str | Path,
    overrides: Sequence[str] = (),
    *,
    weights: Weights | None = None,
    device: torch.device | str = "cpu",
) -> Model:
    """The model that ``reference`` means: a run's newest checkpoint, a checkpoint, an exported
    folder, a model that a plugin ships under this name, or a released model, by its folder or its
    name on the hub (``owner/name[@revision]``).

    ``overrides`` are ``key.path=value`` under :data:`SAMPLING_KEYS`, and where a model came without
    text under ``data``, and a shorter ``length``; where adapters came without their base, also
    :data:`BASE_KEYS`. ``weights`` are the moving average by default, or the only ones that the
    folder holds. Nothing but tensors, JSON and YAML is read, all of the folder verified against its
    manifest first. Raises RecipeError if there is no such
    model, CheckpointError if it is damaged, and PluginError, which names the package to install,
    if a plugin that it was made with is not there.
    """
    registry = Registry.load()
    free = [override for override in overrides if key_of(override) in ("data", "length")]
    about_base = [o for o in overrides if o.partition("=")[0].strip() in BASE_KEYS]
    refuse_trained_keys([o for o in overrides if o not in (*free, *about_base)])
    place = model_folder(str(reference), registry)
    if is_released(place):
        refuse_trained_keys(about_base)
        if weights is not None:
            raise UsageError(f"--weights {weights}: {place} is a released model, of one set")
        return load_released(str(reference), place, registry, overrides, device=device)
    folder = find(place)
    text, (saved, held), base = _recipe(folder), weights_in(folder, weights), base_of(folder)
    if base is None:
        refuse_trained_keys(about_base)
    try:
        resolved = resolve_text(text, folder / RECIPE, overrides, registry)
        if free:
            saved_as = resolve_text(text, folder / RECIPE, (), registry).config
            if _has_text(saved_as):
                refuse_trained_keys(free)
            _refuse_longer(resolved.config, saved_as.length)
    except PluginError as error:
        raise PluginError(f"{error}{origin.advice(folder, text, registry)}") from error
    dtype, where = stored_dtype(folder), torch.device(device)
    plain = dtype == torch.float32  # what is trained here; the others came from elsewhere
    assembly = assemble(
        resolved.config,
        registry,
        device=where,
        dtype=dtype,
        folder=folder,
        with_data=False,
        fill=None if plain else lambda module: refill(module, saved, where),
    )
    if base is not None:
        load_adapters(assembly.objective, saved)
    elif plain:
        load_weights(assembly.objective, saved)
    assembly.objective.eval()
    return Model(folder, assembly, assemble_sampling(assembly), held, saved_step(folder))


def load_released(
    reference: str,
    folder: Path,
    registry: Registry,
    overrides: Sequence[str] = (),
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    pickled: bool = False,
) -> Model:
    """The released model in ``folder``, which the user calls ``reference``, ready to be sampled.

    Raises DataError and CheckpointError as :func:`~dlmkit.released.opening.open_released`, and
    DataError if the folder has no tokenizer.
    """
    opened = open_released(
        folder,
        registry,
        device=device,
        dtype=dtype,
        pickled=pickled,
        overrides=overrides,
        name=reference,
    )
    assembly = needs_tokenizer(opened).assembly
    _refuse_longer(assembly.config, opened.conversion.recipe["length"])
    assembly.objective.eval()
    return Model(folder, assembly, assemble_sampling(assembly), "raw")


def open_model(
    reference: str,
    overrides: Sequence[str] = (),
    *,
    weights: Weights | None = None,
    device: torch.device | str = "cpu",
) -> Model:
    """The model of a recipe with nothing to train, such as ``markov``, or :func:`load_model`'s.

    ``overrides`` of such a recipe may be any of its keys. Raises UsageError for a recipe whose
    model must be trained first, and what loading a model raises.
    """
    registry = Registry.load()
    if not names_recipe(reference, registry):
        return load_model(reference, overrides, weights=weights, device=device)
    if weights is not None:
        raise UsageError(f"--weights {weights}: {reference} is a recipe, and has no checkpoint")
    resolved = load_recipe(reference, overrides, registry)
    assembly = assemble(resolved.config, registry, device=device)
    if any(parameter.requires_grad for parameter in assembly.objective.parameters()):
        raise UsageError(
            f"{reference} is a recipe, and its model must be trained first: run 'dlmkit train "
            f"{reference}' and name the run's folder"
        )
    assembly.objective.eval()
    return Model(None, assembly, assemble_sampling(assembly))


def names_recipe(reference: str, registry: Registry) -> bool:
    """Whether ``reference`` is a recipe's file, or its name and no folder's or model's."""
    if os.path.isdir(folders.expanded(reference)):
        return False
    models = {name for key in registry.models() for name in (key, key.rpartition(":")[2])}
    recipes = {name for recipe in shipped(registry) for name in (recipe.name, recipe.qualified)}
    return reference.endswith(SUFFIXES) or reference in recipes - models


def model_folder(reference: str, registry: Registry, pickled: bool = False) -> Path:
    """The folder of a run, a checkpoint, a shipped or a released model; one of the hub,
    ``owner/name[@revision]``, is fetched, with its pickles if it is to be. Raises RecipeError if
    there is none, and DataError if
    the hub has none or cannot be reached."""
    path = folders.expanded(reference)
    if not reference:
        raise UsageError("the name of the model is empty")
    if os.path.isdir(path):
        return path
    if os.path.exists(path):
        raise UsageError(f"{path} is a file; a model is a run's folder or a checkpoint's")
    try:
        return registry.model(reference).path
    except RecipeError as error:
        if names_recipe(reference, registry):
            raise UsageError(
                f"{reference} is a recipe, and a trained model is expected here: run 'dlmkit train "
                f"{reference}' and name the run's folder; one with nothing to train, such as "
                "markov, makes none"
            ) from error
        if (named := hub_name(reference)) is not None:
            return fetched(*named, pickled)
        raise RecipeError(
            f"{error}, and no folder has that name; train one by 'dlmkit train RECIPE' and name "
            "its folder"
        ) from error


def _has_text(config: RecipeConfig) -> bool:
    """Whether the recipe of a model says what text it learned from; a released model's does not."""
    return bool(config.data.options.get("paths", True))


def _refuse_longer(config: RecipeConfig, most: int) -> None:
    if config.length > most:
        raise UsageError(f"length: {config.length}, and rows of this model have {most} tokens")


def _recipe(folder: Path) -> str:
    try:
        return files.read_text(folder / RECIPE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / RECIPE} cannot be read: {files.why(error)}") from error

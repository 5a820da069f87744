"""Weights that training starts from: those of a model that exists already, strictly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlmkit import documents, folders
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.errors import CheckpointError, RecipeError
from dlmkit.files import quoted
from dlmkit.recipe.assemble import Assembly
from dlmkit.recipe.compare import line
from dlmkit.recipe.load import load_recipe
from dlmkit.released.fetch import fetched, hub_name
from dlmkit.released.fill import fill, refill
from dlmkit.released.opening import converted, is_released
from dlmkit.released.stored import listed
from dlmkit.training.checkpoint import find
from dlmkit.training.folder import RECIPE
from dlmkit.training.state import weights_in

SAME = ("space", "network")
"""The parts whose weights these are."""


def start_from(assembly: Assembly) -> None:
    """Give the model the weights of the one that ``train.start_from`` names, if it names one.

    That is a released model or a folder of dlmkit's, by path, by the name that a plugin ships it
    under or by its name on the hub. Every tensor of it is used and every tensor here filled, but
    for adapters; what its recipe says of space and network must be said here too. Raises
    RecipeError, listing the differences, where it is not, CheckpointError for other tensors, and
    DataError if it cannot be had.
    """
    reference = assembly.config.train.start_from
    if reference is None:
        return
    folder = _place(reference, assembly)
    objective, device, dtype = assembly.objective, assembly.context.device, assembly.context.dtype
    if is_released(folder):
        _, _, conversion, tokenizer = converted(folder, assembly.registry)
        said = {kind: _said(assembly, kind, conversion.recipe[kind]) for kind in SAME}
        _check(assembly, reference, said)
        _check_tokens(assembly, reference, tokenizer)
        stored = listed(folder, conversion, None)
        fill(objective, conversion, stored, device, dtype, named_as=_named(assembly))
        return
    checkpoint = find(folder)
    recipe = load_recipe(str(checkpoint / RECIPE), (), assembly.registry).config
    said = {kind: getattr(recipe, kind).model_dump(mode="json", by_alias=True) for kind in SAME}
    _check(assembly, reference, said)
    _check_tokens(assembly, reference, Tokenizer.load(checkpoint))
    refill(objective, weights_in(checkpoint)[0], device, dtype, named_as=_named(assembly))


def _place(reference: str, assembly: Assembly) -> Path:
    path = folders.expanded(reference)
    if os.path.isdir(path):
        return path
    try:
        return assembly.registry.model(reference).path
    except RecipeError as error:
        if (named := hub_name(reference)) is not None:
            return fetched(*named)
        raise CheckpointError(
            f"train.start_from: {reference} is no folder, no model of a plugin and no name on the "
            "hub (owner/name)"
        ) from error


def _said(assembly: Assembly, kind: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a conversion as a resolved recipe has it, but for options that it leaves out."""
    entry = assembly.registry.find(kind, part["use"])
    return {"use": entry.qualified, "with": dict(part.get("with", {}))}


def _named(assembly: Assembly) -> Any:
    """What the base calls the tensors of the objective."""
    prefix = "network."

    def named(name: str) -> str | None:
        if not name.startswith(prefix):
            return name
        inner = assembly.network.base_name(name.removeprefix(prefix))
        return None if inner is None else prefix + inner

    return named


def _check_tokens(assembly: Assembly, reference: str, tokenizer: Tokenizer | None) -> None:
    """Every token of the base has its id here; there may be more, for padding, say."""
    words = {} if tokenizer is None else tokenizer.backend.get_vocab()
    here = assembly.tokenizer.backend.get_vocab()
    others = sorted(token for token, index in words.items() if here.get(token) != index)
    if others:
        raise RecipeError(
            f"train.start_from: {reference} has another tokenizer than data.with.tokenizer: "
            f"{len(others)} of its tokens have another id here, such as {quoted(others[0])}"
        )


def _check(assembly: Assembly, reference: str, said: Mapping[str, Mapping[str, Any]]) -> None:
    """Options that the base has and leaves empty, such as adapters, may be given here."""
    lines: list[str] = []
    for kind, part in said.items():
        here = getattr(assembly.config, kind).model_dump(mode="json", by_alias=True)
        stated = {key: value for key, value in part["with"].items() if value is not None}
        options = {key: here["with"].get(key) for key in stated}
        differences = documents.differences(
            {kind: {"use": part["use"], "with": stated}},
            {kind: {"use": here["use"], "with": options}},
        )
        lines += map(line, differences)
    if lines:
        raise RecipeError(
            f"train.start_from: {reference} is another model than this recipe's (its own | this):\n"
            + "\n".join(lines)
        )

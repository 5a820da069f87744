"""Trained models: found by a reference, loaded for sampling, and asked for text."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from dlmkit import files, folders
from dlmkit.errors import CheckpointError, PluginError, RecipeError, UsageError
from dlmkit.plugin import KINDS
from dlmkit.prompts import GAP, beginning, gaps
from dlmkit.recipe.assemble import Assembly, assemble, assemble_sampling
from dlmkit.recipe.load import load_recipe, resolve_text
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.recipe.shelf import SUFFIXES, shipped
from dlmkit.registry import Registry
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import Request
from dlmkit.sampling.runner import stream
from dlmkit.sampling.step import Sample, Step
from dlmkit.training import origin
from dlmkit.training.checkpoint import find
from dlmkit.training.loop import Learner, StepRecord, train
from dlmkit.training.parallel import Single, World
from dlmkit.training.state import RECIPE, Weights, load_weights, weights_file

SAMPLING_KEYS = ("sampler", "grid", "exit", "freeze", "guidance", "statistic", "sample", "seed")
"""The recipe's keys that may differ from the run's when its model is sampled."""


@dataclass(frozen=True)
class Text:
    """A sampled text: its index and seed, which fix it, and what it took.

    ``steps`` are those of the grid, ``evaluations`` the network's, and ``halted`` is the exit
    rule that ended it early, if one did.
    """

    index: int
    seed: int
    text: str
    steps: int
    evaluations: int
    halted: str | None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Model:
    """A model and how it is sampled. ``folder`` is its checkpoint; None: it was composed."""

    folder: Path | None
    assembly: Assembly
    parts: SamplingParts

    @property
    def config(self) -> RecipeConfig:
        """The recipe it was trained with, but for the sampling keys that were overridden."""
        return self.assembly.config

    def sample(
        self,
        n: int = 4,
        seed: int = 0,
        prompt: str | Sequence[str] | None = None,
        infill: str | Sequence[str] | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        length: int | Sequence[int] | None = None,
        offset: int = 0,
        world: World | None = None,
    ) -> list[Text]:
        """``n`` texts, or ``n`` of each ``prompt`` and ``infill``, as :meth:`requests` says.

        Text i depends on the seed and i alone. ``steps`` and ``batch_size`` default to the
        recipe's. The processes of ``world`` share the texts out, and each returns all of them.
        Raises UsageError for a request that does not fit or cannot be written in the vocabulary.
        """
        world = world or Single(self.assembly.context.device)
        requests = self.requests(n, prompt, infill, length, offset=offset)[world.rank :: world.size]
        turns = self.stream(requests, seed, steps, batch_size)
        return self.texts(gather(turns, world), seed)

    def train(self) -> Iterator[StepRecord]:
        """Train by the recipe's ``train`` section, one record an optimiser step.

        For notebooks and tests: nothing is written. When it ends the weights are the moving
        average of those that were trained. Raises UsageError for a model without data.
        """
        data, config = self.assembly.data, self.config
        if data is None:
            raise UsageError("a model loaded for sampling has no data; train it by `dlmkit train`")
        processes = Single(self.assembly.context.device)
        objective = self.assembly.objective.train()
        learner = Learner.begin(objective, config.train, processes)
        stream = data.stream(config.seed, config.train.batch_size)
        yield from train(learner, stream, config.train, config.seed, processes)
        objective.load_state_dict(learner.ema.objective.state_dict())
        objective.eval()

    def requests(
        self,
        n: int,
        prompt: str | Sequence[str] | None = None,
        infill: str | Sequence[str] | None = None,
        length: int | Sequence[int] | None = None,
        lines: Sequence[str] = (),
        offset: int = 0,
    ) -> list[Request]:
        """What :meth:`sample` asks the sampling loop for.

        A ``prompt`` is what a text begins with; an ``infill`` is a text with gaps, each marked by
        ``___``, which share what is left of its length as evenly as can be. ``lines`` are prompts,
        or texts with gaps where they have one. All of them take turns in this order until there
        are ``n`` texts of each; so do several lengths in tokens (default: the model's own). The
        texts' indices count from ``offset``: of P prompts, text i answers number i mod P.
        """
        if n < 1:
            raise UsageError(f"cannot draw {n} texts; draw 1 or more")
        asked = [(text, False) for text in _several(prompt)]
        asked += [(text, True) for text in _several(infill)]
        asked += [(text, GAP.search(text) is not None) for text in lines]
        asked = asked or [("", False)]
        lengths = _several(length) or [self.config.length]
        for size in lengths:
            if not 1 <= size <= self.config.length:
                raise UsageError(
                    f"a text of {size} tokens: this model writes 1 to {self.config.length}"
                )
        last = offset + n * len(asked) - 1
        if not 0 <= offset <= last < 2**63:
            raise UsageError(f"texts {offset} to {last}: indices are 0 to 2^63 - 1")
        return [
            self._request(row, *asked[row % len(asked)], lengths[row % len(lengths)])
            for row in range(offset, last + 1)
        ]

    def _request(self, row: int, text: str, gapped: bool, length: int) -> Request:
        tokenizer = self.assembly.tokenizer
        if gapped:
            return Request.infill(row, gaps(text, tokenizer, length), length)
        return Request.prompt(row, beginning(text, tokenizer, length), length)

    def stream(
        self,
        requests: Sequence[Request],
        seed: int = 0,
        steps: int | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Step]:
        """The sampling loop of this model."""
        return stream(
            self.parts,
            requests,
            seed=seed,
            steps=self.config.sample.steps if steps is None else steps,
            batch_size=self.config.sample.batch_size if batch_size is None else batch_size,
            length=self.config.length,
            width=self.parts.inference.width,
        )

    def texts(self, samples: Iterable[Sample], seed: int) -> list[Text]:
        """``samples`` as text, in order of their index."""
        decode = self.assembly.tokenizer.decode
        return [
            Text(s.row, seed, decode(s.ids), s.steps, s.evaluations, s.halted)
            for s in sorted(samples, key=lambda sample: sample.row)
        ]


def gather(turns: Iterable[Step], world: World) -> list[Sample]:
    """The samples of ``turns`` and of every other process's."""
    own = [sample for step in turns for sample in step.samples]
    return [sample for samples in world.share(own) for sample in samples]


Value = TypeVar("Value", str, int)


def _several(value: Value | Sequence[Value] | None) -> list[Value]:
    """None, one or several values as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str | int) else list(value)


def compose(device: torch.device | str = "cpu", **recipe: Any) -> Model:
    """A fresh model of a recipe given as keywords, as in a recipe file.

    A part is its name, or ``{"use": name, "with": options}``. Raises RecipeError with every
    problem of the recipe, and DataError if its text cannot be had.
    """
    registry = Registry.load()
    whole = {
        key: {"use": value} if key in KINDS and isinstance(value, str) else value
        for key, value in recipe.items()
    }
    resolved = resolve_text(json.dumps(whole), "compose()", (), registry)
    assembly = assemble(resolved.config, registry, device=device)
    return Model(None, assembly, assemble_sampling(assembly))


def load_model(
    reference: str | Path,
    overrides: Sequence[str] = (),
    *,
    weights: Weights | None = None,
    device: torch.device | str = "cpu",
) -> Model:
    """The model that ``reference`` means: a run's newest checkpoint, a checkpoint, an exported
    folder, or a model that a plugin ships under this name.

    ``overrides`` are ``key.path=value`` under :data:`SAMPLING_KEYS`; ``weights`` are the moving
    average by default, or the only ones that the folder holds. Nothing but tensors, JSON and YAML
    is read, all verified against the manifest first. Raises RecipeError if there is no such
    model, CheckpointError if it is damaged, and PluginError, which names the package to install,
    if a plugin that it was made with is not there.
    """
    _only_sampling(overrides)
    registry = Registry.load()
    folder = find(model_folder(str(reference), registry))
    text, file = _recipe(folder), weights_file(folder, weights)
    try:
        resolved = resolve_text(text, folder / RECIPE, overrides, registry)
    except PluginError as error:
        raise PluginError(f"{error}{origin.advice(folder, text, registry)}") from error
    assembly = assemble(resolved.config, registry, device=device, folder=folder, with_data=False)
    load_weights(assembly.objective, file)
    assembly.objective.eval()
    return Model(folder, assembly, assemble_sampling(assembly))


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
    if not _names_recipe(reference, registry):
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


def _names_recipe(reference: str, registry: Registry) -> bool:
    """Whether ``reference`` is a recipe's file, or its name and no folder's or model's."""
    if os.path.isdir(folders.expanded(reference)):
        return False
    models = {name for key in registry.models() for name in (key, key.rpartition(":")[2])}
    recipes = {name for recipe in shipped(registry) for name in (recipe.name, recipe.qualified)}
    return reference.endswith(SUFFIXES) or reference in recipes - models


def _only_sampling(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = override.partition("=")[0].partition(".")[0].strip()
        if key not in SAMPLING_KEYS:
            raise UsageError(
                f"--set {override}: {key!r} belongs to what was trained and cannot change when "
                f"sampling; what can are {', '.join(SAMPLING_KEYS)}"
            )


def model_folder(reference: str, registry: Registry) -> Path:
    """The folder of a run, a checkpoint or a shipped model. Raises RecipeError if there is none."""
    path = folders.expanded(reference)
    if os.path.isdir(path):
        return path
    if os.path.exists(path):
        raise UsageError(f"{path} is a file; a model is a run's folder or a checkpoint's")
    try:
        return registry.model(reference).path
    except RecipeError as error:
        raise RecipeError(f"{error}, and no folder has that name; {_how(reference)}") from error


_ON_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def _how(reference: str) -> str:
    """What to do where ``reference`` is no model here."""
    if _ON_HUB.fullmatch(reference) is None or Path(reference).parent.is_dir():
        return "train one by 'dlmkit train RECIPE' and name its folder"
    return (
        "it may be the name of a repository on the Hugging Face hub: if its model is one of "
        f"dlmkit's, which 'dlmkit push' sent there, fetch it by 'dlmkit pull {reference}' and name "
        "the new folder. No other model can be sampled here; an encoder of transformers can be the "
        "network of a recipe ('dlmkit components show network/hf-encoder')"
    )


def _recipe(folder: Path) -> str:
    try:
        return files.read_text(folder / RECIPE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / RECIPE} cannot be read: {error}") from error

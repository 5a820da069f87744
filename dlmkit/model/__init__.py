"""One model: found by a reference, loaded, composed, sampled, trained and saved."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from dlmkit import devices, documents, files, folders
from dlmkit.core.chat import Conversation, conversations
from dlmkit.core.data import Data
from dlmkit.errors import CheckpointError, PluginError, RecipeError, UsageError
from dlmkit.plugin import KINDS, MOST, Part
from dlmkit.recipe.assemble import Assembly, assemble, assemble_sampling
from dlmkit.recipe.load import load_recipe, resolve_text, resolve_values
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.recipe.shelf import SUFFIXES, shipped
from dlmkit.recipe.short import NONE, Choice, Short, overrides, typed
from dlmkit.recipe.write import dump
from dlmkit.registry.lookup import Registry
from dlmkit.released.fetch import fetched, hub_name
from dlmkit.released.fill import refill
from dlmkit.released.opening import is_released, needs_tokenizer, open_released
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.prompts import GAP, beginning, gaps
from dlmkit.sampling.recorders import progress as bar
from dlmkit.sampling.recorders import watched
from dlmkit.sampling.requests import Request
from dlmkit.sampling.runner import stream
from dlmkit.sampling.snapshot import Sample, Snapshot
from dlmkit.training import origin
from dlmkit.training.base import start_from
from dlmkit.training.checkpoint import find, saved_step
from dlmkit.training.loop import Learner, StepRecord, train
from dlmkit.training.parallel import Single, World
from dlmkit.training.signals import Held
from dlmkit.training.state import (
    RECIPE,
    Weights,
    load_weights,
    named_tensors,
    stored_dtype,
    weights_in,
)

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
class Run:
    """How requests are sampled; None stands for what the model's recipe says.

    Text i depends on ``seed`` and i alone. ``steps`` are the points of the grid, ``batch_size``
    rows are sampled side by side, and each of them has ``length`` positions: as many as the longest
    request where a text's noise does not depend on it (token ids), and else the model's.
    """

    seed: int = 0
    steps: int | None = None
    batch_size: int | None = None
    length: int | None = None


ANSWER = 128
"""Tokens drawn for an answer unless a length is said: what LLaDA's and Dream's own code draw."""

Chat = str | Sequence[Any]
"""What a user says, a conversation (a list of turns), or several of these."""

Progress = bool | Callable[[Snapshot], object]
"""Whether to show a bar while sampling, or what to call after every step of the loop."""


@dataclass
class _Paused:
    """A training that was left early: its ``learner``, the weights that it trains, which have
    given way to their average, and the record of the last step, if nobody has seen it."""

    learner: Learner
    raw: dict[str, Tensor]
    unseen: StepRecord | None


@dataclass(repr=False, eq=False)
class Model:
    """A model and how it is sampled.

    ``folder`` is the checkpoint or exported folder that holds these ``weights``; None: they were
    composed, or trained here. ``step`` counts the optimiser steps behind them.
    """

    folder: Path | None
    assembly: Assembly
    parts: SamplingParts
    weights: Weights = "ema"
    step: int = 0
    _paused: _Paused | None = field(default=None, init=False)

    def __repr__(self) -> str:
        config, assembly = self.config, self.assembly
        count = sum(parameter.numel() for parameter in assembly.objective.parameters())
        kinds = ("space", "schedule", "network", "masking", "objective", "sampler", "grid", "exit")
        named = {kind: part.use for kind in kinds if (part := getattr(config, kind))}
        named["guidance"] = ", ".join(part.use for part in config.guidance)
        return (
            f"Model of {self.folder or 'no folder'}: {count:,} parameters after {self.step} steps, "
            f"on {assembly.context.device}\n  texts of 1 to {config.length} tokens, of "
            f"{assembly.tokenizer.vocab_size:,} different ones\n  "
            + "\n  ".join(f"{kind}: {use}" for kind, use in named.items() if use)
        )

    @property
    def config(self) -> RecipeConfig:
        """The recipe it was trained with, but for the sampling keys that were overridden."""
        return self.assembly.config

    @property
    def data(self) -> Data:
        """The recipe's text. A model loaded for sampling reads it when it is first asked for, and
        what :meth:`with_` makes of it afterwards does not read it again."""
        if self.assembly.data is None:
            read = self.assembly.build("data", self.config.data)
            self.assembly = self.assembly.with_data(read)
        assert self.assembly.data is not None
        return self.assembly.data

    def recipe(self) -> str:
        """The resolved recipe as YAML."""
        return dump(self.config.model_dump(mode="json", by_alias=True))

    def digest(self) -> str:
        """The sha256 of what it computes with: its parts' options and every tensor.

        Options at their defaults are left out, so that a model stays itself when a later version's
        part has one more: records, cards and certificates of it hold on.
        """
        registry, data = self.assembly.registry, dict[str, Any](length=self.config.length)
        for kind in ("space", "schedule", "network", "objective"):
            part: Part = getattr(self.config, kind)
            options = registry.options(kind, part)
            said = options.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            data[kind] = {"use": registry.find(kind, part.use).qualified, "with": said}
        return documents.digest(data, self.assembly.objective.state_dict())

    def with_(self, *overrides: str) -> Model:
        """The same model, sampled as ``overrides`` say: ``with_("sampler.use=heun")``.

        Each is ``key.path=value`` under :data:`SAMPLING_KEYS`, as after ``--set``. Raises
        UsageError for another key, and RecipeError and PluginError as a recipe does.
        """
        words = [w if isinstance(w, Short) else Short.of(w, repr(w)) for w in overrides]
        _only_sampling(words)
        return self._overridden(words)

    def _overridden(self, words: Sequence[str]) -> Model:
        if not words:
            return self
        given = self.config.model_dump(mode="json", by_alias=True)
        config = resolve_values(given, "the model's recipe", words, self.assembly.registry).config
        assembly = replace(self.assembly, config=config)
        return replace(self, assembly=assembly, parts=assemble_sampling(assembly))

    def with_parts(
        self,
        sampler: Choice | None = None,
        grid: Choice | None = None,
        exit: Choice | None = None,
        freeze: Choice | None = None,
        guidance: Choice | Sequence[Choice] | None = None,
    ) -> Model:
        """The same model, sampled by other parts; None keeps the recipe's, "none" leaves it out.

        A part is what a command line calls it (``"ancestral:eta=0.5"``), or ``{"use": NAME,
        "with": OPTIONS}``. One named as the recipe's own keeps its other options. Raises
        RecipeError and PluginError as a recipe does.
        """
        if isinstance(guidance, str | Mapping | Part):
            guidance = [guidance]
        guides = () if guidance is None else guidance or (NONE,)
        return self._overridden(overrides(sampler, grid, exit, freeze, guides, python=True))

    def sample(
        self,
        n: int = 4,
        seed: int = 0,
        prompt: str | Sequence[str] | None = None,
        infill: str | Sequence[str] | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        length: int | Sequence[int] | None = None,
        *,
        chat: Chat | None = None,
        system: str | None = None,
        max_new_tokens: int | None = None,
        offset: int = 0,
        sampler: Choice | None = None,
        grid: Choice | None = None,
        exit: Choice | None = None,
        freeze: Choice | None = None,
        guidance: Choice | Sequence[Choice] | None = None,
        progress: Progress = False,
        world: World | None = None,
    ) -> list[Text]:
        """``n`` texts, or ``n`` of each ``prompt``, ``infill`` and ``chat``, as :meth:`requests`
        says.

        Text i depends on the seed and i alone. ``steps`` and ``batch_size`` default to the
        recipe's, and the parts from ``sampler`` to ``guidance`` as :meth:`with_parts` says.
        ``progress`` and ``world`` are :meth:`run`'s. Raises UsageError for a request that does
        not fit or cannot be written in the vocabulary.
        """
        model = self.with_parts(sampler, grid, exit, freeze, guidance)
        requests = model.requests(
            n,
            prompt,
            infill,
            length,
            offset=offset,
            chat=chat,
            system=system,
            max_new_tokens=max_new_tokens,
        )
        run = Run(seed, steps, batch_size)
        return model.texts(model.run(requests, run, progress, world), seed)

    def train(self) -> Iterator[StepRecord]:
        """Train by the recipe's ``train`` section, one record an optimiser step.

        For notebooks and tests: nothing is written. When it ends, or is left early, the weights
        are the moving average of those that were trained. Left early, by ``break`` or by Ctrl-C
        (which waits for the end of a step; a second one does not), the next call goes on where
        this one stopped, and the records are those of a straight run. After the last step, or
        a second Ctrl-C, it starts anew from the weights as they are. Raises DataError if the
        text cannot be had, and NonFiniteLossError before any weight is touched.
        """
        config, objective = self.config, self.assembly.objective
        stream = self.data.stream(config.seed, config.train.batch_size)
        learner, unseen = self._learner()
        if learner.step:
            stream.restore(learner.stream_state)
        before, held, world = self.step - learner.step, Held(), Single(self.assembly.context.device)
        steps = train(learner, stream, config.train, config.seed, world, held)
        try:
            while True:
                if unseen is None:
                    with held:
                        unseen = next(steps, None)
                if unseen is None:
                    return
                record, unseen = unseen, None
                yield record
        finally:
            steps.close()
            if learner.step < config.train.steps and not held.broken:
                raw = {name: own.clone() for name, own in named_tensors(objective).items()}
                self._paused = _Paused(learner, raw, unseen)
            objective.load_state_dict(learner.ema.objective.state_dict())
            objective.eval()
            if learner.step:
                self.folder, self.weights, self.step = None, "ema", before + learner.step

    def _learner(self) -> tuple[Learner, StepRecord | None]:
        """A learner of this model, or the one that was left, and a record that nobody has seen."""
        objective, config = self.assembly.objective.train(), self.config.train
        paused, self._paused = self._paused, None
        if paused is None:
            world = Single(self.assembly.context.device)
            return Learner.begin(objective, config, world, self.step), None
        with torch.no_grad():
            for name, own in named_tensors(objective).items():
                own.copy_(paused.raw[name])
        paused.learner.optimiser.zero_grad()  # of a step that was not finished
        return paused.learner, paused.unseen

    def merged(self) -> Model:
        """This model with its adapters in the weights beside them; itself if it has none."""
        if not self.assembly.network.adapted:
            return self
        objective, network = copy.deepcopy(self.assembly.objective), self.config.network
        options = {**network.options, **objective.network.merge()}
        changed = {"network": network.model_copy(update={"options": options})}
        assembly = replace(
            self.assembly,
            config=self.config.model_copy(update=changed),
            objective=objective,
            space=objective.space,
            schedule=objective.schedule,
            network=objective.network,
        )
        return replace(self, assembly=assembly, parts=assemble_sampling(assembly))

    def save(self, folder: str | Path, name: str | None = None, licence: str | None = None) -> None:
        """Write the model as ``dlmkit export`` does: :func:`load`, ``dlmkit sample``,
        transformers and the hub read the folder. ``name`` is the title of its card.

        Raises UsageError if the folder is there and not empty.
        """
        from dlmkit.model.folder import Export

        path = folders.expanded(str(folder))
        Export(self, name or path.name, licence).write(path)

    def requests(
        self,
        n: int,
        prompt: str | Sequence[str] | None = None,
        infill: str | Sequence[str] | None = None,
        length: int | Sequence[int] | None = None,
        lines: Sequence[str] = (),
        offset: int = 0,
        *,
        chat: Chat | None = None,
        system: str | None = None,
        max_new_tokens: int | None = None,
    ) -> list[Request]:
        """What :meth:`sample` asks the sampling loop for.

        A ``prompt`` is what a text begins with; an ``infill`` is a text with gaps, each marked by
        ``___``, which share what is left of its length as evenly as can be. ``lines`` are prompts,
        or texts with gaps where they have one. A ``chat`` is what a user says, a conversation as a
        list of ``{"role": ..., "content": ...}``, or several of these; it is written by the
        tokenizer's own template, behind the ``system`` turn if one is given, and its text is the
        answer alone. All of them take turns in this order until there
        are ``n`` texts of each; so do several lengths in tokens (default: the model's own). The
        texts' indices count from ``offset``: of P prompts, text i answers number i mod P.

        Instead of a length, ``max_new_tokens`` are drawn behind what is given (of an answer,
        :data:`ANSWER` if neither is said).
        """
        asked: list[tuple[str | Conversation, bool]] = [
            *((_text(text, "prompt"), False) for text in _several(prompt)),
            *((_text(text, "infill"), True) for text in _several(infill)),
            *((text, GAP.search(text) is not None) for text in lines),
            *((turns, False) for turns in conversations(chat, system)),
        ]
        asked = asked or [("", False)]
        lengths: list[int | None] = [*_several(length)] or [None]
        for size in lengths:
            if size is not None:
                _whole(size, "length", 1, self.config.length)
        if max_new_tokens is not None:
            _whole(max_new_tokens, "max_new_tokens", 1, self.config.length)
            if length is not None:
                raise UsageError("length and max_new_tokens are both given: a text has one size")
            if any(gapped for _, gapped in asked):
                raise UsageError("max_new_tokens are for what follows a text; gaps need length")
        count, first = _whole(n, "n", 1) * len(asked), _whole(offset, "offset", 0)
        _whole(count, "the number of texts", 1, MOST)  # more of them: from an offset on
        _whole(first + count - 1, "the index of the last text", 0)
        return [
            self._request(
                row, *asked[row % len(asked)], lengths[row % len(lengths)], max_new_tokens
            )
            for row in range(first, first + count)
        ]

    def _request(
        self, row: int, asked: str | Conversation, gapped: bool, length: int | None, new: int | None
    ) -> Request:
        tokenizer, most = self.assembly.tokenizer, self.config.length
        if gapped:
            assert isinstance(asked, str)
            return Request.infill(row, gaps(asked, tokenizer, length or most), length or most)
        ids, answers = beginning(asked, tokenizer), not isinstance(asked, str)
        if answers and length is None and new is None:
            new = max(1, min(ANSWER, most - len(ids)))
        whole = (length or most) if new is None else len(ids) + new
        if whole > most or len(ids) >= whole:
            what = "the conversation" if answers else f"the prompt {files.quoted(asked)}"
            size = f"its text is to have {whole}" if whole <= most else f"{new} are to follow"
            raise UsageError(
                f"{what} has {len(ids)} tokens, and {size}: shorten it to "
                f"{min(whole, most) - (new or 1)} or fewer"
                + (f", the model reading {most} in all" if whole > most else "")
            )
        return Request.prompt(row, ids, whole, len(ids) if answers else 0)

    def run(
        self,
        requests: Sequence[Request],
        run: Run = Run(),
        progress: Progress = False,
        world: World | None = None,
    ) -> list[Sample]:
        """The samples of ``requests``, in order of their index.

        The processes of ``world`` share them out, and each returns all of them. ``progress`` shows
        a bar in the first process, on stderr while that is a terminal; or it is called with every
        :class:`~dlmkit.sampling.snapshot.Snapshot` of this process. Raises UsageError for a number
        of ``run`` that is out of range.
        """
        world = world or Single(self.assembly.context.device)
        run = replace(run, length=self.rows(requests, run))
        mine = requests[world.rank :: world.size]
        turns = self.stream(mine, run)
        if callable(progress):
            turns = watched(turns, progress)
        elif progress and world.first:
            turns = bar(turns, len(mine))
        found = world.share([sample for step in turns for sample in step.samples])
        return sorted((one for each in found for one in each), key=lambda sample: sample.row)

    def stream(self, requests: Sequence[Request], run: Run = Run()) -> Iterator[Snapshot]:
        """The sampling loop of this model, a turn at a time. Raises as :meth:`run`."""
        config = self.config.sample
        steps = config.steps if run.steps is None else run.steps
        size = config.batch_size if run.batch_size is None else run.batch_size
        return stream(
            self.parts,
            requests,
            seed=_whole(run.seed, "seed", 0),
            steps=_whole(steps, "steps", 1, MOST),
            batch_size=_whole(size, "batch_size", 1, MOST),
            length=_whole(self.rows(requests, run), "length", 1, self.config.length),
            width=self.parts.inference.width,
        )

    def rows(self, requests: Sequence[Request], run: Run = Run()) -> int:
        """The positions of a row: see :class:`Run`."""
        if run.length is None and self.parts.space.corruption.by_position:
            return max((len(request.tokens) for request in requests), default=1)
        return self.config.length if run.length is None else run.length

    def texts(self, samples: Iterable[Sample], seed: int) -> list[Text]:
        """``samples`` as text."""
        decode = self.assembly.tokenizer.decode
        return [
            Text(s.row, seed, decode(s.ids[s.start :]), s.steps, s.evaluations, s.halted)
            for s in samples
        ]


def _text(value: str, what: str) -> str:
    """``value``, a text. Raises UsageError, naming ``what``."""
    if isinstance(value, str):
        return value
    raise UsageError(f"{what} is {files.quoted(value)}; expected a text, or a list of texts")


def _whole(value: int, what: str, least: int, most: int = 2**63 - 1) -> int:
    """``value``, an integer from ``least`` to ``most``. Raises UsageError, naming ``what``."""
    if isinstance(value, Integral) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    limit = "2^63 - 1" if most == 2**63 - 1 else str(most)
    raise UsageError(
        f"{what} is {files.quoted(value)}; expected an integer from {least} to {limit}"
    )


Value = TypeVar("Value", str, int)


def _several(value: Value | Sequence[Value] | None) -> list[Value]:
    """None, one or several values as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str | int) else list(value)


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

    ``overrides`` are ``key.path=value`` under :data:`SAMPLING_KEYS`, and under ``data`` where a
    model came without text; ``weights`` are the moving
    average by default, or the only ones that the folder holds. Nothing but tensors, JSON and YAML
    is read, all verified against the manifest first. Raises RecipeError if there is no such
    model, CheckpointError if it is damaged, and PluginError, which names the package to install,
    if a plugin that it was made with is not there.
    """
    text_of = [override for override in overrides if _key(override) == "data"]
    _only_sampling([override for override in overrides if override not in text_of])
    registry = Registry.load()
    place = model_folder(str(reference), registry)
    if is_released(place):
        if weights is not None:
            raise UsageError(f"--weights {weights}: {place} is a released model, of one set")
        return load_released(str(reference), place, registry, overrides, device=device)
    folder = find(place)
    text, (saved, held) = _recipe(folder), weights_in(folder, weights)
    try:
        if text_of and _has_text(resolve_text(text, folder / RECIPE, (), registry).config):
            _only_sampling(text_of)
        resolved = resolve_text(text, folder / RECIPE, overrides, registry)
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
    if plain:
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
        raise _untrained(reference)
    assembly.objective.eval()
    return Model(None, assembly, assemble_sampling(assembly))


def names_recipe(reference: str, registry: Registry) -> bool:
    """Whether ``reference`` is a recipe's file, or its name and no folder's or model's."""
    if os.path.isdir(folders.expanded(reference)):
        return False
    models = {name for key in registry.models() for name in (key, key.rpartition(":")[2])}
    recipes = {name for recipe in shipped(registry) for name in (recipe.name, recipe.qualified)}
    return reference.endswith(SUFFIXES) or reference in recipes - models


def _has_text(config: RecipeConfig) -> bool:
    """Whether the recipe of a model says what text it learned from; a released model's does not."""
    return bool(config.data.options.get("paths", True))


def _key(override: str) -> str:
    return override.partition("=")[0].partition(".")[0].strip()


def _only_sampling(overrides: Sequence[str]) -> None:
    for override in overrides:
        if (key := _key(override)) not in SAMPLING_KEYS:
            raise UsageError(
                f"{typed(override)}: {key!r} belongs to what was trained and cannot change when "
                f"sampling; what can are {', '.join(SAMPLING_KEYS)}"
            )


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
            raise _untrained(reference) from error
        if (named := hub_name(reference)) is not None:
            return fetched(*named, pickled)
        raise RecipeError(
            f"{error}, and no folder has that name; train one by 'dlmkit train RECIPE' and name "
            "its folder"
        ) from error


def _untrained(recipe: str) -> UsageError:
    return UsageError(
        f"{recipe} is a recipe, and its model must be trained first: run 'dlmkit train {recipe}' "
        "and name the run's folder"
    )


def _recipe(folder: Path) -> str:
    try:
        return files.read_text(folder / RECIPE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / RECIPE} cannot be read: {files.why(error)}") from error

"""A model as one value: its parts and weights, sampled, trained and saved."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlmkit import documents, folders
from dlmkit.core.data import Data
from dlmkit.errors import UsageError
from dlmkit.model.prompts import Chat, prompts, several, whole
from dlmkit.plugin import MOST, Part
from dlmkit.recipe.assemble import Assembly, assemble_sampling
from dlmkit.recipe.load import resolve_values
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.recipe.short import NONE, Choice, Short, overrides, typed
from dlmkit.recipe.write import dump
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.recorders import progress as bar
from dlmkit.sampling.recorders import watched
from dlmkit.sampling.requests import Request
from dlmkit.sampling.runner import stream
from dlmkit.sampling.snapshot import Sample, Snapshot
from dlmkit.training.loop import Learner, StepRecord, train
from dlmkit.training.needs import parameter_count
from dlmkit.training.parallel import Single, World
from dlmkit.training.signals import Held
from dlmkit.training.state import (
    Weights,
    named_tensors,
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
        count = parameter_count(assembly.objective)
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
        refuse_trained_keys(words)
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
        exit: Choice | None = None,  # noqa: A002
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
        exit: Choice | None = None,  # noqa: A002
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
        """Train by the recipe's ``train`` section, one record per optimiser step.

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
                raw = {name: t.clone() for name, t in named_tensors(objective).items()}
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
            for name, tensor in named_tensors(objective).items():
                tensor.copy_(paused.raw[name])
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
        given, most = prompts(prompt, infill, lines, chat, system), self.config.length
        sizes = [whole(size, "length", 1, most) for size in several(length)]
        lengths: list[int | None] = [*sizes] or [None]
        if max_new_tokens is not None:
            whole(max_new_tokens, "max_new_tokens", 1, most)
            if length is not None:
                raise UsageError("length and max_new_tokens are both given: a text has one size")
            if any(text.gapped for text in given):
                raise UsageError("max_new_tokens are for what follows a text; gaps need length")
        count, first = whole(n, "n", 1) * len(given), whole(offset, "offset", 0)
        whole(count, "the number of texts", 1, MOST)  # more of them: from an offset on
        whole(first + count - 1, "the index of the last text", 0)
        return [
            given[row % len(given)].request(
                row, self.assembly.tokenizer, most, lengths[row % len(lengths)], max_new_tokens
            )
            for row in range(first, first + count)
        ]

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
        by_process = world.share([sample for step in turns for sample in step.samples])
        return sorted(chain.from_iterable(by_process), key=lambda sample: sample.row)

    def stream(self, requests: Sequence[Request], run: Run = Run()) -> Iterator[Snapshot]:
        """The sampling loop of this model, a turn at a time. Raises as :meth:`run`."""
        config = self.config.sample
        steps = config.steps if run.steps is None else run.steps
        size = config.batch_size if run.batch_size is None else run.batch_size
        return stream(
            self.parts,
            requests,
            seed=whole(run.seed, "seed", 0),
            steps=whole(steps, "steps", 1, MOST),
            batch_size=whole(size, "batch_size", 1, MOST),
            length=whole(self.rows(requests, run), "length", 1, self.config.length),
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


def key_of(override: str) -> str:
    """The top-level key that ``override`` is about, ``sampler`` of ``sampler.use=heun``."""
    return override.partition("=")[0].partition(".")[0].strip()


def refuse_trained_keys(overrides: Sequence[str]) -> None:
    """Raise UsageError if one of ``overrides`` is about a key of recipes that is none of
    :data:`SAMPLING_KEYS`; one that is no key at all the recipe's own check refuses."""
    trained = RecipeConfig.model_fields.keys() - SAMPLING_KEYS
    for override in overrides:
        if (key := key_of(override)) in trained:
            raise UsageError(
                f"{typed(override)}: {key!r} belongs to what was trained and cannot change when "
                f"sampling; what can are {', '.join(SAMPLING_KEYS)}"
            )

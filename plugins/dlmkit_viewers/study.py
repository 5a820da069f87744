"""The whole analysis: of one checkpoint, and over the checkpoints of a run, as one document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from dlmkit import devices
from dlmkit.core.data import Data
from dlmkit.core.embedding import GaussianCorruption
from dlmkit.core.metric import Metric
from dlmkit.core.objective import Batch
from dlmkit.errors import DataError, UsageError
from dlmkit.exact.context_gain import Frequencies, context_gain, sigmas
from dlmkit.exits.record_run import record
from dlmkit.exits.trace import Trace
from dlmkit.model import Model, load_model
from dlmkit.sampling.requests import unconditional
from dlmkit.training.checkpoint import checkpoints, find, step_of
from dlmkit.version import __version__
from dlmkit_viewers.sweep import sweep
from dlmkit_viewers.trajectory import trajectory
from dlmkit_viewers.warp import warp

FORMAT = 1
LEVELS = 12
"""Noise levels at which the cross-entropy is measured."""

_COUNTED = 500_000  # training tokens behind the context-free denoiser, as in a run's validation

Say = Callable[[str], None]


@dataclass(frozen=True)
class StudySettings:
    """What is asked for. ``count`` texts are drawn and as many held-out rows are read;
    ``overrides`` are sampling keys of the recipe."""

    count: int
    seed: int
    steps: int | None = None
    batch_size: int | None = None
    overrides: Sequence[str] = ()
    weights: Literal["ema", "raw"] = "ema"
    scales: Sequence[float] = ()
    with_data: bool = True
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class StudyText:
    """What the recipe's data is good for: held-out rows, token frequencies, fitted metrics."""

    held_out: Batch
    frequencies: Frequencies
    metrics: Sequence[Metric]

    @staticmethod
    def of(model: Model, count: int) -> StudyText:
        """Raises DataError if the data cannot be had, or is not what the model was trained on."""
        try:
            data: Data = model.assembly.build("data", model.config.data)
        except DataError as error:
            raise DataError(f"{error}; or leave out what needs text by --no-data") from error
        if data.tokenizer.pieces() != model.assembly.tokenizer.pieces():
            raise DataError(
                f"{model.config.data.use} now gives another vocabulary than {model.folder} was "
                "trained with: its text has changed; restore it, or leave it out by --no-data"
            )
        metrics = [model.assembly.build("metric", part) for part in model.config.metric]
        for metric in metrics:
            metric.fit(data)
        held_out, device = data.validation(count), model.assembly.context.device
        rows = Batch(held_out.ids.to(device), held_out.attend.to(device))
        return StudyText(rows, Frequencies.count(data, _COUNTED), metrics)


def chosen(reference: Path, which: str) -> list[Path]:
    """The checkpoints that ``which`` means: ``last``, ``all``, or how many, evenly spread.

    A checkpoint's own folder means that one. All are verified. Raises UsageError for another
    word, CheckpointError if one of them is damaged or there is none.
    """
    if which not in ("all", "last") and not (which.isdecimal() and int(which) > 0):
        raise UsageError(f"--checkpoints {which}: expected all, last or a number of them")
    newest = find(reference)
    if which == "last" or newest == reference:
        return [newest]
    every = checkpoints(newest.parent)
    if which == "all":
        return [find(path) for path in every]
    wanted, last = min(int(which), len(every)), len(every) - 1
    apart = last / max(wanted - 1, 1)
    return [find(every[round(last - apart * i)]) for i in reversed(range(wanted))]


def analyse(folders: Sequence[Path], settings: StudySettings, say: Say) -> dict[str, Any]:
    """The document: how it was made, and one entry a checkpoint, oldest first.

    Every entry holds what :func:`measure` finds, the checkpoint's ``step`` (None if its folder
    is not named after one) and its ``folder``. Raises what loading, sampling and data raise.
    """
    entries: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    text: StudyText | None = None
    for folder in folders:
        say(f"{folder}: {settings.count} texts")
        model = _load(folder, settings)
        if not entries:
            about = _about(model, settings)
            text = StudyText.of(model, settings.count) if settings.with_data else None
        measured = measure(model, settings, text)
        entries.append({"step": step_of(folder), "folder": str(folder), **measured})
    return {**about, "checkpoints": entries}


def measure(model: Model, settings: StudySettings, text: StudyText | None) -> dict[str, Any]:
    """``warp``, ``trajectory``, ``levels`` (cross-entropies by noise level) and ``noise_scale``
    (the sweep) of one model; the last two are None where ``left_out`` says why."""
    space, left_out = model.assembly.space, {}
    gaussian = isinstance(space.corruption, GaussianCorruption)
    levels = swept = None
    if not gaussian:
        left_out["levels"] = left_out["noise_scale"] = "this model's noise is not Gaussian"
    elif text is None:
        left_out["levels"] = "left out by --no-data"
    if gaussian and text is not None:
        levels = _levels(model, settings, text)
    if gaussian and settings.scales:
        swept = list(_sweep(model, settings, text))
    elif gaussian:
        left_out["noise_scale"] = "no scales were asked for"
    return {
        "warp": warp(model.assembly.schedule),
        "levels": levels,
        "trajectory": trajectory(_trace(model, settings)),
        "noise_scale": swept,
        "left_out": left_out,
    }


def _load(folder: Path, settings: StudySettings) -> Model:
    words = [*settings.overrides, "exit=null", "freeze=null"]
    return load_model(folder, words, weights=settings.weights, device=settings.device)


def _steps(model: Model, settings: StudySettings) -> int:
    return model.config.sample.steps if settings.steps is None else settings.steps


def _about(model: Model, settings: StudySettings) -> dict[str, Any]:
    config = model.config
    kinds = {kind: getattr(config, kind) for kind in ("schedule", "sampler", "grid")}
    return {
        "format": FORMAT,
        "kind": "analysis",
        "dlmkit": __version__,
        "device": devices.label(model.assembly.context.device),
        "texts": settings.count,
        "seed": settings.seed,
        "length": config.length,
        "dim": model.assembly.space.dim,
        "vocabulary": model.assembly.space.vocab_size,
        "steps": _steps(model, settings),
        "weights": settings.weights,
        "data": config.data.use,
        **{kind: part.model_dump(mode="json", by_alias=True) for kind, part in kinds.items()},
        "guidance": [part.model_dump(mode="json", by_alias=True) for part in config.guidance],
    }


def _levels(
    model: Model, settings: StudySettings, text: StudyText
) -> list[dict[str, float | None]]:
    reports = context_gain(
        model.parts.denoise,
        model.assembly.space,
        model.assembly.schedule,
        text.held_out,
        text.frequencies,
        levels=sigmas(model.assembly.schedule, LEVELS),
        seed=settings.seed,
    )
    return [report.record() for report in reports]


def _trace(model: Model, settings: StudySettings) -> Trace:
    ids = torch.zeros(1, 1, dtype=torch.int64, device=settings.device)
    continuous = model.assembly.space.embed(ids).is_floating_point()
    requests = unconditional(settings.count, model.config.length)
    return record(
        model,
        requests,
        {"seed": settings.seed},
        steps=_steps(model, settings),
        batch_size=settings.batch_size,
        norms=continuous,
    )


def _sweep(
    model: Model, settings: StudySettings, text: StudyText | None
) -> Iterator[dict[str, Any]]:
    return sweep(
        model,
        settings.scales,
        () if text is None else text.metrics,
        count=settings.count,
        seed=settings.seed,
        steps=_steps(model, settings),
        batch_size=settings.batch_size,
    )

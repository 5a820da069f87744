"""Full runs of a model, recorded: tokens, every installed statistic, and what tokens read as."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dlmkit.core.exits import Statistic
from dlmkit.core.tokenizer import Tokenizer
from dlmkit.exits.trace import Trace, TraceRecorder
from dlmkit.model import Model, Run
from dlmkit.plugin import Part
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.recorders import progress
from dlmkit.sampling.requests import Request

TOKENS = "tokens"
"""Where a trace's ``about`` holds the text of every token that occurs in it, by id as text."""


def record(
    model: Model,
    requests: Sequence[Request],
    about: Mapping[str, Any],
    *,
    steps: int,
    batch_size: int | None = None,
    positions: Collection[str] = (),
    norms: bool = False,
) -> Trace:
    """The trace of ``requests`` on a grid of ``steps`` points, sampled with ``about["seed"]``.

    The model's own exit rules must have been left out. What else is kept, and what is raised,
    is :class:`TraceRecorder`'s to say.
    """
    model = replace(model, parts=everything(model))
    length = model.rows(requests)
    recorder = TraceRecorder(
        model.parts, requests, steps=steps, length=length, positions=positions, norms=norms
    )
    turns = recorder.watch(model.stream(requests, Run(about["seed"], steps, batch_size)))
    for _ in progress(turns, len(requests)):
        pass
    dtype = model.parts.inference.dtype or model.assembly.context.dtype
    floors = {name: s.floor.get(dtype, 0.0) for name, s in model.parts.statistics.items()}
    trace = recorder.trace({**about, "floors": floors})
    tokens = readings(model.assembly.tokenizer, trace.ids.unique().tolist())
    return replace(trace, about={**trace.about, TOKENS: tokens})


def everything(model: Model) -> SamplingParts:
    """The parts with every installed statistic that needs no option, beside the recipe's own."""
    statistics: dict[str, Statistic] = dict(model.parts.statistics)
    for entry in model.assembly.registry.components("statistic"):
        fields = entry.component.config.model_fields.values()
        if entry.component.name not in statistics and not any(f.is_required() for f in fields):
            part = Part(use=entry.qualified)
            statistics[entry.component.name] = model.assembly.build("statistic", part)
    return replace(model.parts, statistics=statistics)


def readings(tokenizer: Tokenizer, ids: Sequence[int]) -> dict[str, str]:
    """What each token adds to a text in the middle of which it stands; special tokens by name."""
    return {str(token): _reading(tokenizer, token) for token in ids}


def _reading(tokenizer: Tokenizer, token: int) -> str:
    once, twice = tokenizer.decode([token]), tokenizer.decode([token, token])
    if not twice:
        return str(tokenizer.backend.id_to_token(token))
    return twice[len(once) :] if twice.startswith(once) else once

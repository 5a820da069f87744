"""Quotas of masked models with a guarantee: texts as those of one token a step, within a promise.

A quota changes what later steps see, so nothing can be replayed: every threshold is run for real.
Both runs take the likeliest token wherever they write one. With draws nothing could be compared:
a token that is written at another step is drawn by other noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dlmkit.core.tokens import MaskCorruption
from dlmkit.errors import UsageError
from dlmkit.exits.calibrate import SPLIT, Calibrated, Promise, check_levels, choose
from dlmkit.exits.replay import Replay
from dlmkit.model import Model, Run
from dlmkit.noise import Noise
from dlmkit.plugin import Config, Part
from dlmkit.recipe.write import inline
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.requests import Request

DECODER = "masked:decoder"


def knob(config: type[Config]) -> str | None:
    """The option of a quota that sets its pace: its first real number, if it has one."""
    return next((n for n, f in config.model_fields.items() if f.annotation is float), None)


def knob_of(registry: Registry, quota: str) -> str:
    """:func:`knob` of a quota by its name. Raises UsageError if it has none."""
    name = knob(registry.find("quota", quota).component.config)
    if name is None:
        raise UsageError(f"the quota {quota} has no number to find: its pace is the grid's")
    return name


def sampler(order: Part, quota: Part) -> Part:
    """The decoder that writes the likeliest tokens by ``order`` and ``quota``."""
    return Part(use=DECODER, options={"order": order, "quota": quota, "draw": {"temperature": 0}})


def decoded(model: Model, part: Part, exit: Part | None = None) -> Model:
    """``model`` with the sampler ``part``, where nothing but that and ``exit`` ends a text."""
    words, ends = (
        "null" if one is None else inline(one.model_dump(mode="json", by_alias=True))
        for one in (part, exit)
    )
    return model.with_(f"sampler={words}", f"exit={ends}", "freeze=null")


def written(
    model: Model, requests: Sequence[Request], run: Run
) -> tuple[list[tuple[int, ...]], Tensor]:
    """(token ids of every text, its evaluations), in the order of the requests."""
    found = {sample.row: sample for sample in model.run(requests, run)}
    samples = [found[request.row] for request in requests]
    return [tuple(one.ids) for one in samples], torch.tensor([one.evaluations for one in samples])


def calibrate_quota(
    model: Model,
    requests: Sequence[Request],
    order: Part,
    quota: str,
    knob: str,
    thresholds: Sequence[float],
    promise: Promise,
    run: Run,
    share: float = 0.25,
    say: Callable[[str], None] = lambda line: None,
) -> Calibrated:
    """The boldest of ``thresholds`` for the number ``knob`` of ``quota`` that keeps ``promise``.

    ``share`` of the requests order the thresholds, the others test them, as for exit rules. Raises
    UsageError for a model without masks, for requests of which nothing is given, which would all
    be answered by one text, and for too few of them.
    """
    if not isinstance(model.parts.space.corruption, MaskCorruption):
        raise UsageError("a quota is of masked models, and this one masks no tokens")
    if not all(any(token is not None for token in request.tokens) for request in requests):
        raise UsageError(
            "of a request nothing is given: the likeliest text is the same for all of those; give "
            "beginnings of texts"
        )
    rows = torch.tensor([request.row for request in requests])
    drawn = Noise.keyed(SPLIT, rows, 0).uniform(0, (), torch.float64).argsort()
    count = round(share * len(rows))
    first, rest = drawn[:count].sort().values, drawn[count:].sort().values
    check_levels(promise.epsilon, promise.delta, len(rest), 1)
    generated = _generated(requests, model.config.length)
    run = replace(run, steps=model.config.length)  # enough for one token a step
    whole, full = _run(model, requests, sampler(order, _one()), run)
    ran: dict[float, Replay] = {}

    def at(threshold: float) -> Replay:
        if threshold not in ran:
            part = sampler(order, Part(use=quota, options={knob: threshold}))
            ids, spent = _run(model, requests, part, run)
            differs = ((ids != whole) & generated).sum(dim=1).double()
            lost = differs / generated.sum(dim=1)
            ran[threshold] = Replay(spent, spent, ids, lost, round(float(full.double().mean())))
            say(f"{knob} {threshold:g}: {float(spent.double().mean()):.2f} evaluations")
        return ran[threshold]

    return choose(
        quota,
        thresholds,
        lambda threshold: at(threshold).take(first),
        lambda threshold: at(threshold).take(rest),
        promise,
    )


def _one() -> Part:
    return Part(use="masked:tokens", options={"tokens": 1})


def _generated(requests: Sequence[Request], length: int) -> Tensor:
    generated = torch.zeros(len(requests), length, dtype=torch.bool)
    for place, request in enumerate(requests):
        wanted = [token is None for token in request.tokens]
        generated[place, : len(wanted)] = torch.tensor(wanted)
    return generated


def _run(model: Model, requests: Sequence[Request], part: Part, run: Run) -> tuple[Tensor, Tensor]:
    """(ids padded to the model's length, evaluations), a row per request, in their order."""
    texts, spent = written(decoded(model, part), requests, run)
    ids = torch.zeros(len(requests), model.config.length, dtype=torch.int64)
    for place, tokens in enumerate(texts):
        ids[place, : len(tokens)] = torch.tensor(tokens)
    return ids, spent

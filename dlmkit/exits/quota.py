"""Quotas of masked models with a guarantee: texts as those of one token a step, within a promise.

A quota changes what later steps see, so nothing can be replayed: every threshold is run for real.
Both runs take the likeliest token wherever they write one. With draws nothing could be compared:
a token that is written at another step is drawn by other noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlmkit.core.objective import Batch
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

DECODER, ONE = "masked:decoder", Part(use="masked:tokens", options={"tokens": 1})

SHARE = 0.25
"""Of the texts, those that order the thresholds."""


def knob(config: type[Config]) -> str | None:
    """The option of a quota that sets its pace: its first real number, if it has one."""
    return next((n for n, f in config.model_fields.items() if f.annotation is float), None)


@dataclass(frozen=True)
class OpenQuota:
    """A quota whose number ``knob`` is left open, with the order that it is used with."""

    quota: str
    knob: str
    order: Part

    @staticmethod
    def of(registry: Registry, quota: str, order: str) -> OpenQuota:
        """By the names of both. Raises UsageError if the quota has no number to find."""
        entry = registry.find("quota", quota)
        name = knob(entry.component.config)
        if name is None:
            raise UsageError(
                f"the quota {entry.qualified} has no number to find: its pace is the grid's"
            )
        return OpenQuota(entry.qualified, name, Part(use=registry.find("order", order).qualified))

    def at(self, value: float) -> Part:
        """The quota with ``value`` in its open place."""
        return Part(use=self.quota, options={self.knob: value})

    def sampler(self, value: float) -> Part:
        """The decoder that writes the likeliest tokens by it."""
        return sampler(self.order, self.at(value))


def sampler(order: Part, quota: Part) -> Part:
    """The decoder that writes the likeliest tokens by ``order`` and ``quota``."""
    return Part(use=DECODER, options={"order": order, "quota": quota, "draw": {"temperature": 0}})


def decoded(model: Model, part: Part, rule: Part | None = None) -> Model:
    """``model`` with the sampler ``part``, where nothing but that and ``rule`` ends a text."""
    words, ends = (
        "null" if choice is None else inline(choice.model_dump(mode="json", by_alias=True))
        for choice in (part, rule)
    )
    return model.with_(f"sampler={words}", f"exit={ends}", "freeze=null")


def written(
    model: Model, requests: Sequence[Request], run: Run
) -> tuple[list[tuple[int, ...]], Tensor]:
    """(token ids of every text, its evaluations), in the order of the requests."""
    by_row = {sample.row: sample for sample in model.run(requests, run)}
    samples = [by_row[request.row] for request in requests]
    return [tuple(s.ids) for s in samples], torch.tensor([s.evaluations for s in samples])


def calibrate_quota(
    model: Model,
    requests: Sequence[Request],
    quota: OpenQuota,
    thresholds: Sequence[float],
    promise: Promise,
    run: Run,
    say: Callable[[str], None] = lambda line: None,
) -> Calibrated:
    """The boldest of ``thresholds`` for ``quota`` that keeps ``promise``.

    :data:`SHARE` of the requests order them, the others test them, as for exit rules. Raises
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
    count = round(SHARE * len(rows))
    first, rest = drawn[:count].sort().values, drawn[count:].sort().values
    check_levels(promise.epsilon, promise.delta, len(rest), 1)
    generated = _generated(requests, model.config.length)
    run = replace(run, steps=model.config.length)  # enough for one token a step
    whole, full = _run(model, requests, sampler(quota.order, ONE), run)
    ran: dict[float, Replay] = {}

    def at(threshold: float) -> Replay:
        if threshold not in ran:
            ids, spent = _run(model, requests, quota.sampler(threshold), run)
            differs = ((ids != whole) & generated).sum(dim=1).double()
            lost = differs / generated.sum(dim=1)
            ran[threshold] = Replay(spent, spent, ids, lost, round(float(full.double().mean())))
            say(f"{quota.knob} {threshold:g}: {float(spent.double().mean()):.2f} evaluations")
        return ran[threshold]

    return choose(
        quota.quota,
        thresholds,
        lambda threshold: at(threshold).take(first),
        lambda threshold: at(threshold).take(rest),
        promise,
    )


def beginnings(batch: Batch, percent: int) -> list[Request]:
    """Requests that give the first ``percent`` of each row's tokens, and one token at least."""
    requests = []
    for row, (ids, attend) in enumerate(zip(batch.ids, batch.attend, strict=True)):
        tokens = ids[attend].tolist()
        known = max(1, len(tokens) * percent // 100)
        requests.append(Request.prompt(row, tokens[:known], len(tokens)))
    return requests


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

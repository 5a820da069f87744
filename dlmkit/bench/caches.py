"""`dlmkit bench sampler --cache`: what every cache of a masked model saves, and what it changes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch

from dlmkit import devices
from dlmkit.core.cache import Kind
from dlmkit.core.tokens import MaskCorruption
from dlmkit.errors import RecipeError, UsageError
from dlmkit.model import Model, Run
from dlmkit.recipe.schema import EXACT
from dlmkit.recipe.write import inline
from dlmkit.report import markdown
from dlmkit.sampling.requests import Request

Say = Callable[[str], None]

NONE = "none"
LOST = 0.95
"""A cache loses where its speed over none is less: nearer to 1 is the machine's noise."""


@dataclass(frozen=True)
class CachePlan:
    """``given`` percent of each text are its beginning; ``batches`` are drawn ``rounds`` times, all
    caches in turn. ``steps``: those of the grid."""

    batches: tuple[int, ...] = (1, 8, 32)
    given: int = 50
    steps: int | None = None
    rounds: int = 3
    seed: int = 0


@dataclass(frozen=True)
class CacheRow:
    """A cache at one batch size. ``speed`` is seconds without over seconds with it, the median of
    the rounds, of the clock and of the processor; ``tokens`` and ``texts`` are the shares that are
    as without, of what is written."""

    cache: str
    batch: int
    seconds: float
    speed: float
    speeds: tuple[float, ...]
    processor_speed: float
    tokens: float
    texts: float
    evaluations: float


def run(model: Model, name: str, plan: CachePlan, say: Say = lambda line: None) -> dict[str, Any]:
    """Compare the caches of ``model``, called ``name``: the document.

    Raises UsageError for a model that can have none.
    """
    if not isinstance(model.parts.space.corruption, MaskCorruption):
        raise UsageError(f"{name}: --cache is of masked models, and this one masks no tokens")
    model = _windowed(model)
    kept, refused = _models(model)
    if len(kept) == 1:
        raise UsageError(f"{name}: no cache can be had:\n  " + "\n  ".join(refused.values()))
    rows = [row for batch in plan.batches for row in _measured(kept, batch, plan, say)]
    return {
        "format": "dlmkit-caches",
        "model": name,
        "sha256": model.digest(),
        "protocol": {
            **asdict(plan),
            "steps": plan.steps or model.config.sample.steps,
            "length": model.config.length,
            "sampler": model.config.sampler.model_dump(mode="json", by_alias=True),
            "threads": torch.get_num_threads(),
            "device": devices.label(model.assembly.context.device),
        },
        "refused": refused,
        "rows": [asdict(row) for row in rows],
        "verdicts": [_sentence([r for r in rows if r.cache == c]) for c in kept if c != NONE],
    }


def _windowed(model: Model) -> Model:
    """``model`` with a sampler that writes window after window, its own if that does."""
    if model.parts.sampler.window is not None:
        return model
    block = getattr(model.assembly.network, "block", None) or 0
    window = block or min(32, max(1, model.config.length // 4))
    options = {"order": {"use": "masked:confidence"}, "window": window}
    options["window_from"] = "row" if block else "text"
    return model.with_(f"sampler={inline({'use': 'masked:decoder', 'with': options})}")


def _models(model: Model) -> tuple[dict[str, Model], dict[str, str]]:
    """(the model with each cache that it can have, why it cannot have the others)."""
    kept, refused = {NONE: model.with_("sample.cache=none")}, {}
    for kind in get_args(Kind):
        try:
            other = model.with_(f"sample.cache={kind}")
        except RecipeError as error:
            refused[kind] = str(error)
        else:
            kept[other.config.sample.kept] = other
    return kept, refused


def _measured(kept: Mapping[str, Model], batch: int, plan: CachePlan, say: Say) -> list[CacheRow]:
    plain = kept[NONE]
    length, run = plain.config.length, Run(plan.seed, plan.steps, batch)
    given = length * plan.given // 100
    free = plain.run([Request.free(row, length) for row in range(batch)], run) if given else []
    begun = [sample.ids[:given] for sample in free] or [()] * batch
    asked = [Request.prompt(row, ids, length) for row, ids in enumerate(begun)]
    samples: dict[str, list[Any]] = {}
    seconds: dict[str, list[tuple[float, float]]] = {cache: [] for cache in kept}
    for _ in range(plan.rounds):
        for cache, model in kept.items():
            begin = time.perf_counter(), time.process_time()
            samples[cache] = model.run(asked, run)
            end = time.perf_counter(), time.process_time()
            seconds[cache].append((end[0] - begin[0], end[1] - begin[1]))
    rows = []
    for cache in kept:
        pairs = list(zip(seconds[NONE], seconds[cache], strict=True))
        speeds = tuple(before[0] / after[0] for before, after in pairs)
        both = zip(samples[NONE], samples[cache], strict=True)
        same = [_same(a.ids[given:], b.ids[given:]) for a, b in both]
        row = CacheRow(
            cache=cache,
            batch=batch,
            seconds=statistics.median(after[0] for _, after in pairs),
            speed=statistics.median(speeds),
            speeds=speeds,
            processor_speed=statistics.median(b[1] / max(a[1], 1e-9) for b, a in pairs),
            tokens=statistics.fmean(same),
            texts=statistics.fmean(share == 1.0 for share in same),
            evaluations=statistics.fmean(sample.evaluations for sample in samples[cache]),
        )
        say(f"{cache}, batch {batch}: {row.seconds:.2f} s")
        rows.append(row)
    return rows


def _same(ids: Sequence[int], others: Sequence[int]) -> float:
    alike = sum(a == b for a, b in zip(ids, others, strict=False))
    return alike / max(len(ids), len(others), 1)


def _sentence(rows: Sequence[CacheRow]) -> str:
    """What a cache does at all batch sizes, in one line."""
    speeds = ", ".join(f"{row.speed:.2f} at {row.batch}" for row in rows)
    lost = [str(row.batch) for row in rows if row.speed < LOST]
    where = f"; it loses at batch {', '.join(lost)}" if lost else ""
    least = min(rows, key=lambda row: row.tokens)
    same = f"at least {100 * least.tokens:.1f} % of the tokens are as without"
    if rows[0].cache in EXACT and least.texts == 1.0:
        same = "texts are as without"
    return f"{rows[0].cache}: speed by batch {speeds}; {same}{where}"


def lines(content: Mapping[str, Any]) -> list[str]:
    """The document as a table and one sentence per cache."""
    about = content["protocol"]
    rows = [
        (
            row["cache"],
            str(row["batch"]),
            f"{row['seconds']:.2f}",
            f"{row['speed']:.2f} ({min(row['speeds']):.2f} to {max(row['speeds']):.2f})",
            f"{row['processor_speed']:.2f}",
            f"{100 * row['tokens']:.1f}",
            f"{100 * row['texts']:.1f}",
            f"{row['evaluations']:.1f}",
        )
        for row in content["rows"]
    ]
    head = ("cache", "batch", "seconds", "speed", "processor", "tokens %", "texts %", "evaluations")
    return [
        f"{content['model']}: texts of {about['length']} tokens, {about['given']} % given, "
        f"{about['steps']} steps, {about['rounds']} rounds, {about['device']}, "
        f"{about['threads']} threads",
        "",
        *markdown(head, rows).splitlines(),
        "",
        *content["verdicts"],
        *(f"{cache}: none here: {why}" for cache, why in content["refused"].items()),
    ]

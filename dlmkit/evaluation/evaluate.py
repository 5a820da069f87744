"""From a model or from texts to an evaluation record."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch
from pydantic import ValidationError

from dlmkit import documents
from dlmkit.core.data import Data
from dlmkit.core.objective import Batch
from dlmkit.errors import UsageError
from dlmkit.evaluation import likelihood
from dlmkit.evaluation.conditions import conditions
from dlmkit.evaluation.measure import Gauge, Intervals, Left, Results, measure, number, pinned
from dlmkit.evaluation.record import UNKNOWN, Record
from dlmkit.exact.intervals import left_out
from dlmkit.model import Model, Progress, Run
from dlmkit.plugin import Part
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.registry.complaints import complaints, validated
from dlmkit.registry.lookup import Registry
from dlmkit.sampling.snapshot import Sample
from dlmkit.training.parallel import World

_FINGERPRINTED = 2000  # held-out documents whose text is part of the protocol

LIKELIHOODS: Mapping[
    str, tuple[type[likelihood.MonteCarloBound] | type[likelihood.Flow], Callable[..., Any]]
]
LIKELIHOODS = {
    "bound": (likelihood.MonteCarloBound, likelihood.bound),
    "flow": (likelihood.Flow, likelihood.flow),
}


@dataclass(frozen=True)
class EvaluationPlan:
    """What to draw and how to measure it; ``likelihoods`` name those of :data:`LIKELIHOODS`."""

    count: int
    seed: int = 0
    steps: int | None = None
    batch_size: int | None = None
    intervals: Intervals = field(default_factory=Intervals)
    likelihoods: Sequence[Part] = ()


@dataclass(frozen=True)
class Evaluated:
    """A record and the texts that it is of."""

    record: Record
    texts: Sequence[str]


def of_model(
    model: Model,
    name: str,
    gauges: Sequence[Gauge],
    plan: EvaluationPlan,
    world: World,
    progress: Progress = False,
) -> Evaluated | None:
    """Texts drawn by all processes of ``world`` and measured by the first; None in the others.

    Raises what sampling and the metrics raise.
    """
    chosen = [_likelihood(part) for part in plan.likelihoods]
    requests = model.requests(plan.count)
    run = Run(plan.seed, plan.steps, plan.batch_size)
    samples = model.run(requests, run, progress, world)
    if not world.first:
        return None
    texts = [text.text for text in model.texts(samples, plan.seed)]
    results = measure(gauges, texts, [sample.ids for sample in samples], plan.intervals)
    for use, options in chosen:
        _nats(model, use, options, plan.intervals, results)
    under = conditions(model, requests, plan.steps)
    digest, _ = under.pop("model"), under.pop("versions")
    rule = model.config.exit
    under["exit"] = None if rule is None else rule.model_dump(mode="json", by_alias=True)
    under |= {"seed": plan.seed, "given": under.pop("prompts"), "decoded": "likeliest tokens"}
    protocol = {
        "sampling": under,
        **_protocol(model.config.data, model.data, gauges, plan.count, plan.intervals),
        "likelihood": {use: options.model_dump(mode="json") for use, options in chosen},
    }
    size = plan.batch_size or model.config.sample.batch_size
    execution = {
        "batch_size": size,
        "processes": world.size,
        "partial_batches": "free slots are given to the next text, then dropped; every text counts",
        "threads": torch.get_num_threads(),
    }
    subject = {"name": name, "sha256": digest}
    record = _record(subject, protocol, _described(texts, samples), results, execution)
    return Evaluated(record, texts)


def of_texts(
    texts: Sequence[str],
    name: str,
    source: Part,
    data: Data,
    gauges: Sequence[Gauge],
    intervals: Intervals,
) -> Evaluated:
    """Texts that somebody else made: how they were sampled is not known."""
    results = measure(gauges, texts, None, intervals)
    protocol = {
        "sampling": UNKNOWN,
        **_protocol(source, data, gauges, len(texts), intervals),
        "likelihood": {},
    }
    subject = {"name": name, "sha256": UNKNOWN}
    record = _record(subject, protocol, _described(texts), results, {"sampled": UNKNOWN})
    return Evaluated(record, texts)


def _record(
    subject: Mapping[str, Any],
    protocol: Mapping[str, Any],
    samples: Mapping[str, Any],
    results: Results,
    execution: Mapping[str, Any],
) -> Record:
    left = {label: asdict(left) for label, left in results.left_out.items()}
    return Record(subject, protocol, samples, results.numbers, execution, left)


def chosen_metrics(
    parts: Sequence[Part], config: RecipeConfig, registry: Registry
) -> Sequence[Part]:
    """``parts`` under their qualified names with every option, or else the recipe's own metrics.

    Raises UsageError if there is none of either.
    """
    resolved = [
        Part(
            use=registry.find("metric", part.use).qualified,
            options=registry.options("metric", part).model_dump(mode="json", by_alias=True),
        )
        for part in parts
    ]
    chosen = resolved or config.metric
    if not chosen:
        raise UsageError(
            "the recipe names no metric: give one or more, such as --metric ngram-judge "
            "--metric distinct; 'dlmkit components list metric' shows what there is"
        )
    return chosen


def _protocol(
    source: Part, data: Data, gauges: Sequence[Gauge], count: int, intervals: Intervals
) -> dict[str, Any]:
    known = islice(data.texts("validation"), _FINGERPRINTED)
    return {
        "texts": count,
        "metrics": {gauge.label: pinned(gauge) for gauge in gauges},
        "data": {
            **source.model_dump(mode="json", by_alias=True),
            "read_as": data.describe(),
            "held_out_sha256": documents.digest(list(known)),
            "held_out_documents": _FINGERPRINTED,
        },
        "intervals": intervals.pinned(),
        "software": {
            "python": platform.python_version(),
            **documents.versions(),
        },
    }


def _described(texts: Sequence[str], samples: Sequence[Sample] = ()) -> dict[str, Any]:
    subject: dict[str, Any] = {
        "count": len(texts),
        "empty": sum(not text for text in texts),
        "distinct": len(set(texts)),
        "characters": sum(map(len, texts)) / len(texts),
        "sha256": documents.digest(list(texts)),
    }
    if not samples:
        return {**subject, "tokens": UNKNOWN, "steps": UNKNOWN, "evaluations": UNKNOWN}
    count = len(samples)
    return {
        **subject,
        "tokens": sum(len(sample.ids) for sample in samples) / count,
        "steps": sum(sample.steps for sample in samples) / count,
        "evaluations": sum(sample.evaluations for sample in samples) / count,
        "halted": sum(sample.halted is not None for sample in samples),
    }


def _likelihood(part: Part) -> tuple[str, likelihood.MonteCarloBound | likelihood.Flow]:
    if part.use not in LIKELIHOODS:
        raise UsageError(f"--likelihood {part.use}: expected {' or '.join(LIKELIHOODS)}")
    kind = LIKELIHOODS[part.use][0]
    try:
        return part.use, validated(kind, part.options)
    except ValidationError as error:
        raise UsageError(f"--likelihood {part.use}: {complaints(kind, error)}") from error


def _nats(
    model: Model,
    use: str,
    options: likelihood.MonteCarloBound | likelihood.Flow,
    intervals: Intervals,
    results: Results,
) -> None:
    """Nats a token of held-out rows, in all and in its three terms, added to ``results``."""
    parts = model.parts.prepared() if use == "bound" else model.parts
    subject = likelihood.GaussianModel(parts.denoise, parts.space, parts.schedule)
    batch, device = model.data.validation(options.rows), model.assembly.context.device
    nats = LIKELIHOODS[use][1](
        subject, Batch(batch.ids.to(device), batch.attend.to(device)), options
    )
    tokens = nats.tokens.double()
    chosen = list(left_out(len(tokens), intervals.parts))
    terms = {
        "nats_per_token": nats.total,
        "prior": nats.prior,
        "integral": nats.integral,
        "reconstruction": nats.reconstruction,
    }
    values = {
        name: [float(term[rows].sum() / tokens[rows].sum()) for rows in chosen]
        for name, term in terms.items()
    }
    left = Left(len(tokens), values)
    label = f"likelihood:{use}"
    results.left_out[label] = left
    results.numbers[label] = {
        name: number(float(term.sum() / tokens.sum()), values[name], left.count, intervals)
        for name, term in terms.items()
    }

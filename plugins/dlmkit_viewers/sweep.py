"""The sweep of the initial noise's scale (2211.15089; by its reviews 2305.10818
has one too): quality and diversity, side by side.

Less noise to start from makes texts likelier and less varied, so neither number means much
without the other. All scales are given the same noise, so that they differ in the scale alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dlmkit.core.metric import Metric
from dlmkit.model import Model, Run
from dlmkit.plugin import Part
from dlmkit.sampling.parts import SamplingParts
from dlmkit.sampling.requests import unconditional

GUIDANCE = "initial-noise"
"""The guidance whose option ``scale`` is swept."""

ORDERS = (1, 2, 4)


def sweep(
    model: Model,
    scales: Iterable[float],
    metrics: Sequence[Metric],
    *,
    count: int,
    seed: int,
    steps: int,
    batch_size: int | None = None,
) -> Iterator[dict[str, Any]]:
    """For each scale the numbers of ``metrics`` (fitted) and of :func:`diversity`.

    A name that two metrics use goes to the first. Raises RecipeError if no plugin provides the
    guidance, or if it does not go with the model.
    """
    for scale in scales:
        scaled = replace(model, parts=with_scale(model, scale))
        asked = unconditional(count, model.config.length)
        drawn = scaled.run(asked, Run(seed, steps, batch_size), progress=True)
        texts = [model.assembly.tokenizer.decode(sample.ids) for sample in drawn]
        quality: dict[str, float] = {}
        for metric in metrics:
            quality = {**metric.measure(texts), **quality}
        varied = diversity([sample.ids for sample in drawn])
        yield {"scale": scale, "quality": _finite(quality), "diversity": varied}


def with_scale(model: Model, scale: float) -> SamplingParts:
    """The model's parts, starting from its prior's draw times ``scale``."""
    pairs = zip(model.config.guidance, model.parts.guidance, strict=True)
    others = [part for word, part in pairs if word.use.rpartition(":")[2] != GUIDANCE]
    start = model.assembly.build("guidance", Part(use=GUIDANCE, options={"scale": scale}))
    return replace(model.parts, guidance=(*others, start))


def diversity(rows: Sequence[Sequence[int]]) -> dict[str, float]:
    """How varied texts are, by their tokens.

    distinct_n      share of the n-grams of all texts together that are distinct (1510.03055)
    entropy_1       entropy of the tokens' relative frequencies, in nats
    distinct_texts  share of the texts that no earlier text equals
    """
    numbers = {}
    for n in ORDERS:
        grams = Counter(g for row in rows for g in zip(*(row[i:] for i in range(n)), strict=False))
        if grams:
            numbers[f"distinct_{n}"] = len(grams) / grams.total()
        if n == 1 and grams:
            shares = [k / grams.total() for k in grams.values()]
            numbers["entropy_1"] = -math.fsum(p * math.log(p) for p in shares)
    if rows:
        numbers["distinct_texts"] = len({tuple(row) for row in rows}) / len(rows)
    return numbers


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}

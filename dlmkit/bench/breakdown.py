"""Where the time of one sampling step goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from dlmkit.bench.cases import BenchCase
from dlmkit.bench.flops import level_dtype, unconditional
from dlmkit.bench.timing import interleaved
from dlmkit.core.sampler import Step
from dlmkit.model import Model
from dlmkit.noise import Noise
from dlmkit.sampling.levels import levels
from dlmkit.sampling.parts import SamplingParts

ROUNDS = 5


@torch.no_grad()
def step_breakdown(model: Model, case: BenchCase, parts: SamplingParts) -> dict[str, float]:
    """Seconds of one step of ``case``'s batch in the middle of its grid, by part: each the best
    of interleaved rounds.

    ``network`` and ``vocabulary`` (mean of x0 and normaliser) make an evaluation, ``sampler`` is
    what the solver adds, and each statistic of ``parts`` stands under its name.
    """
    device, space = parts.device, parts.space
    rows = torch.arange(case.batch_size, device=device)
    ids = torch.zeros(case.batch_size, model.config.length, dtype=torch.int64, device=device)
    clean = space.embed(ids)
    table = levels(parts, case.steps)
    middle = (case.steps - 1) // 2
    here, there = (
        type(table)(*(v[k].to(level_dtype(clean)).expand(len(rows)).to(device) for v in table))
        for k in (middle, middle + 1)
    )
    noise = Noise.keyed(0, rows, 0)
    x = space.corruption.corrupt(clean, here, noise)
    read = space.corruption.input(x, here)
    conditioning = unconditional(read)
    previous = parts.denoise.start(x)
    prediction = parts.denoise(x, here, previous, conditioning)
    step = Step.between(x, here, there, noise, previous, middle, case.steps)
    network = model.assembly.network
    has_before = torch.ones_like(rows, dtype=torch.bool)
    runs: dict[str, Callable[[], Any]] = {
        "network": lambda: network(read, here, conditioning, previous),
        "vocabulary": lambda: space.read(prediction.query),
        "sampler": lambda: parts.sampler.step(
            lambda *_: prediction, x, step, parts.sampler.init(x)
        ),
    }
    for name, statistic in parts.statistics.items():
        rest = prediction, prediction, has_before, conditioning.attend
        runs[name] = partial(statistic, space, *rest)
    for run in runs.values():
        run()
    return {
        name: min(seconds)
        for name, seconds in zip(runs, interleaved([*runs.values()], ROUNDS), strict=True)
    }

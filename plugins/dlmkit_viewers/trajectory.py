"""What a trace says of the way from noise to text: curves over the steps, and when tokens settle.

The quantities are those that 2305.10818 looks at, by its public reviews; their form is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlmkit.exits.trace import ANGLE, Trace

QUARTILES = (0.25, 0.75)


def switches(trace: Trace) -> Float[Tensor, "B N"]:
    """Tokens that changed since the step before, of each text; NaN at the first step."""
    changed = (trace.ids[:, 1:] != trace.ids[:, :-1]) & trace.generated[:, None]
    first = torch.full((len(trace.row), 1), torch.nan, dtype=torch.float64)
    return torch.cat((first, changed.sum(dim=2).double()), dim=1)


def settled(trace: Trace) -> Int[Tensor, "B L"]:
    """The step (1 to N) from which on a position's token is the full run's; 0 if not generated."""
    last_wrong = torch.zeros_like(trace.full, dtype=torch.int64)
    for done, ids in enumerate(trace.ids.unbind(dim=1), start=1):
        last_wrong = torch.where(ids != trace.full, done, last_wrong)
    return torch.where(trace.generated, last_wrong + 1, 0)


def curves(trace: Trace) -> dict[str, dict[str, Any]]:
    """Every curve over the steps, by name: the mean over texts, and the quartiles.

    ``norm_x``, ``norm_x0`` and ``score_angle`` are there if the trace holds them. A value that
    no text has (what compares two steps, at the first) is None.
    """
    series = {"switches": switches(trace)}
    series |= {name: trace.statistics[name] for name in SHOWN if name in trace.statistics}
    for name, values in trace.norms.items():
        series[name if name == ANGLE else f"norm_{name}"] = values
    return {name: _summary(values.double()) for name, values in series.items()}


SHOWN = ("entropy", "kl", "jeffreys", "margin")
"""Statistics of which curves are drawn, where they are installed."""


def _summary(values: Float[Tensor, "B N"]) -> dict[str, Any]:
    values = torch.where(torch.isfinite(values), values, torch.nan)
    low, high = (values.nanquantile(q, dim=0) for q in QUARTILES)
    return {"mean": numbers(values.nanmean(dim=0)), "low": numbers(low), "high": numbers(high)}


def settling(trace: Trace) -> dict[str, Any]:
    """When tokens settle, over all generated positions and by position.

    ``share[k]`` is the share settled by step k + 1; ``by_position`` holds the quartiles over
    texts at each position, None where no text generated it.
    """
    steps, generated = settled(trace), trace.generated
    flat = steps[generated]
    counts = torch.bincount(flat, minlength=trace.steps + 1)[1:]
    share = counts.cumsum(dim=0).double() / max(len(flat), 1)
    last_steps = torch.where(generated, steps.double(), torch.nan)
    middle = {"median": 0.5, "low": QUARTILES[0], "high": QUARTILES[1]}
    return {
        "mean": float(flat.double().mean()),
        "share": numbers(share),
        "by_position": {k: numbers(last_steps.nanquantile(q, dim=0)) for k, q in middle.items()},
    }


def trajectory(trace: Trace) -> dict[str, Any]:
    """All of the above, and the noise-to-signal ratio at which each step reads x."""
    return {
        "texts": len(trace.row),
        "steps": trace.steps,
        "sigma": numbers(trace.statistics["sigma"][0]),
        "curves": curves(trace),
        "settling": settling(trace),
    }


def numbers(values: Float[Tensor, "K"]) -> list[float | None]:
    """As JSON takes them: None for what is not a number or infinite."""
    return [value if math.isfinite(value) else None for value in values.double().tolist()]


def mean_of(curve: Mapping[str, Any]) -> float | None:
    """The mean of a curve over the steps that have a value."""
    values = [value for value in curve["mean"] if value is not None]
    return sum(values) / len(values) if values else None

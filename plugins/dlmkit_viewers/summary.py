"""The analysis in a line a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlmkit_viewers.trajectory import mean_of

Entry = Mapping[str, Any]

HEAD = ("checkpoint", "loss", "gain", "switches", "settled at", "last entropy", "score turns")

UNITS = (
    "loss and gain: nats per token, means over the noise levels; switches: tokens that change, a "
    "text, over all steps; settled at: step, mean over tokens; last entropy: nats per token at the "
    "last step; score turns: degrees a step"
)


def numbers(entry: Entry) -> dict[str, float | None]:
    """The columns of :data:`HEAD` but the first; None where it was not measured."""
    levels, way = entry["levels"] or [], entry["trajectory"]
    curves = way["curves"]
    changes = [value for value in curves["switches"]["mean"] if value is not None]
    values = (
        _mean([level["model"] for level in levels]),
        _mean([level["gain"] for level in levels]),
        sum(changes),
        way["settling"]["mean"],
        curves["entropy"]["mean"][-1] if "entropy" in curves else None,
        mean_of(curves["score_angle"]) if "score_angle" in curves else None,
    )
    return dict(zip(HEAD[1:], values, strict=True))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def name(entry: Entry) -> str:
    """``step 500``, or the folder's name."""
    return f"step {entry['step']}" if entry["step"] is not None else Path(entry["folder"]).name


def rows(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line of cells a checkpoint."""
    return [
        (name(e), *("-" if v is None else f"{v:.4g}" for v in numbers(e).values()))
        for e in content["checkpoints"]
    ]

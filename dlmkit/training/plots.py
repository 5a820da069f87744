"""Pictures of a training run: loss, and context gain against the context-free cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlmkit.report import COLOURS, GREY, faded, look, panels, whole_numbers

Record = Mapping[str, Any]


def curves(records: Sequence[Record]) -> Figure:
    """Left, loss by step; right, the context gain at each validation, if there was one.

    The gain is drawn over the context-free cross-entropy, not over the noise level: which level
    leaves how much to be guessed depends on the embeddings, and those move.
    """
    validations = [record for record in records if record["kind"] == "validation"]
    figure, axes = panels(2, (11.0, 4.2)) if validations else panels(1, (6.0, 4.2))
    _losses(axes[0], records)
    if validations:
        _gains(axes[1], validations)
    return figure


def _losses(axes: Axes, records: Sequence[Record]) -> None:
    train = [(r["step"], r["loss"]) for r in records if r["kind"] == "train"]
    held_out = [(r["step"], r["loss"]) for r in records if r["kind"] == "validation"]
    if train:
        axes.plot(*zip(*train, strict=True), color=GREY, lw=1, label="training, warped draws")
    if held_out:
        words = "held out, mean over fixed levels"
        axes.plot(*zip(*held_out, strict=True), label=words, **look(0))
    axes.set(xlabel="step", ylabel="cross-entropy, nats per token", title="Loss")
    whole_numbers(axes.xaxis)
    axes.legend(frameon=False)


def _gains(axes: Axes, validations: Sequence[Record]) -> None:
    validations = [v for v in validations if v["levels"][0]["context_free"] is not None]
    for index, record in enumerate(validations):
        last = index == len(validations) - 1
        free, gain = _series(record, "model")
        axes.plot(
            free,
            gain,
            **faded(index, len(validations)),
            marker="o" if last else None,
            ms=4,
            label=f"model, step {record['step']}" if last or index == 0 else None,
        )
    if validations and validations[-1]["levels"][0]["bigram"] is not None:
        free, gain = _series(validations[-1], "bigram")
        axes.plot(free, gain, color=COLOURS[1], ls="--", lw=1.6, label="exact bigram denoiser")
    axes.axhline(0.0, color=matplotlib.rcParams["axes.edgecolor"], lw=0.8)
    axes.set(
        xlabel="context-free cross-entropy, nats per token",
        ylabel="context gain, nats per token",
        title="What the other positions tell",
    )
    axes.legend(frameon=False)


def _series(record: Record, who: str) -> tuple[list[float], list[float]]:
    levels = sorted(record["levels"], key=lambda level: level["context_free"])
    free = [level["context_free"] for level in levels]
    return free, [level["context_free"] - level[who] for level in levels]

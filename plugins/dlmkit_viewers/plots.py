"""The pictures of an analysis, one idea each. Several checkpoints: the newest stands out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dlmkit.report import (
    COLOURS,
    legend,
    look,
    panel,
    panels,
    plain_numbers,
    reference,
    whole_numbers,
)
from dlmkit_viewers.curves import (
    SIGMA,
    aged,
    band,
    finished,
    gaps,
    numbered,
    sigmas,
)
from dlmkit_viewers.summary import numbers

Content = Mapping[str, Any]

STEP = "step of the grid"


@dataclass(frozen=True)
class StepCurve:
    """A curve over the steps: where it is found, what its axis says, whether it is logarithmic."""

    curve: str
    label: str
    log: bool = False


WAYS: Mapping[str, StepCurve] = {
    "switches": StepCurve("switches", "tokens that changed, a text"),
    "entropy": StepCurve("entropy", "entropy, nats per token"),
    "kl": StepCurve("kl", "KL from the step before, nats per token", log=True),
    "margin": StepCurve("margin", "p(likeliest) - p(runner-up)"),
    "norm-x": StepCurve("norm_x", "norm of x, a token", log=True),
    "norm-x0": StepCurve("norm_x0", "norm of the predicted x0, a token"),
    "score-angle": StepCurve("score_angle", "turn of the score, degrees a step"),
}


def plots(content: Content) -> dict[str, Callable[[], Figure | None]]:
    """What draws each picture of ``content``, in their order; None where it has no data."""
    ways = {key: partial(_way, content, way) for key, way in WAYS.items()}
    before, after = (
        {key: partial(plot, content) for key, plot in group.items()} for group in (BEFORE, AFTER)
    )
    return {**before, **ways, **after}


def loss(content: Content) -> Figure | None:
    """Cross-entropy by noise level, beside exact denoisers that know little of language."""
    return _by_level(content, "model", "cross-entropy, nats per token")


def gain(content: Content) -> Figure | None:
    """What the model takes from the other positions."""
    return _by_level(content, "gain", "context gain, nats per token")


def _by_level(content: Content, key: str, label: str) -> Figure | None:
    entries = [entry for entry in content["checkpoints"] if entry["levels"]]
    if not entries:
        return None
    figure, axes = panel()
    newest = entries[-1]["levels"]
    sigma = [level["sigma"] for level in newest]
    for place, entry in enumerate(entries):
        levels = entry["levels"]
        curve = [level["sigma"] for level in levels], [level[key] for level in levels]
        axes.plot(*curve, **aged(place, entries))
    exact = {"exact unigram": "context_free", "exact bigram": "bigram"}
    for place, (words, other) in enumerate(exact.items()):
        free = [level["context_free"] for level in newest]
        values = [level[other] for level in newest]
        if None not in values:
            if key == "gain":
                values = [a - b for a, b in zip(free, values, strict=True)]
            style: dict[str, Any] = {
                "color": COLOURS[1 + 2 * place],
                "ls": ("--", ":")[place],
                "lw": 1.8,
            }
            axes.plot(sigma, values, **style, label=words)
    axes.set(xlabel=SIGMA, ylabel=label, xscale="log")
    plain_numbers(axes.xaxis)
    return finished(figure, axes)


def warp_cdf(content: Content) -> Figure:
    """The share of training draws below each noise level."""
    label = r"share of training draws below $\sigma$"
    return _warp(content, lambda warp: (warp["sigma"], warp["cdf"]), label)


def warp_density(content: Content) -> Figure:
    """Where training draws are dense, smoothed: a learned warp has the noise of its table."""
    label = r"training draws per unit of ln $\sigma$, smoothed"
    return _warp(content, lambda warp: (warp["middle"], smoothed(warp)), label)


def smoothed(warp: Mapping[str, Sequence[float]]) -> Sequence[float]:
    """The density of ``warp``, each point the mean of those around it in ln sigma.

    Weights are Gaussian, with a deviation of a fortieth of the range; our choice.
    """
    place = np.log(warp["middle"])
    width = (place[-1] - place[0]) / 40.0
    weight = np.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    means: list[float] = (weight @ np.asarray(warp["density"]) / weight.sum(axis=1)).tolist()
    return means


def _warp(
    content: Content,
    curve: Callable[[Mapping[str, Any]], tuple[Sequence[float], Sequence[float]]],
    label: str,
) -> Figure:
    figure, axes = panel()
    entries = content["checkpoints"]
    for place, entry in enumerate(entries):
        style = {**aged(place, entries), "marker": None}
        axes.plot(*curve(entry["warp"]), **style)
    axes.set(xlabel=SIGMA, ylabel=label, xscale="log", ylim=(0, None))
    plain_numbers(axes.xaxis)
    return finished(figure, axes)


def _way(content: Content, way: StepCurve) -> Figure | None:
    """The mean over texts at each step, with the quartiles of the newest."""
    entries = [e for e in content["checkpoints"] if way.curve in e["trajectory"]["curves"]]
    if not entries:
        return None
    figure, axes = panel()
    for place, entry in enumerate(entries):
        curve = entry["trajectory"]["curves"][way.curve]
        style = {**aged(place, entries), "marker": None}
        axes.plot(numbered(curve["mean"]), gaps(curve["mean"]), **style)
        if place == len(entries) - 1:
            band(axes, curve, style["color"])
    if way.curve == "norm_x0":
        reference(axes, content["dim"] ** 0.5, "norm of an embedding, √D")
    axes.set(xlabel=STEP, ylabel=way.label)
    whole_numbers(axes.xaxis)
    if way.log:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
    else:
        axes.set_ylim(0, None)
    sigmas(axes, entries[-1]["trajectory"]["sigma"])
    return finished(figure, axes)


def settled(content: Content) -> Figure:
    """How many tokens have found their last value by each step."""
    figure, axes = panel()
    entries = content["checkpoints"]
    for place, entry in enumerate(entries):
        share = [100 * value for value in entry["trajectory"]["settling"]["share"]]
        style = {**aged(place, entries), "marker": None, "drawstyle": "steps-post"}
        axes.plot(numbered(share), share, **style)
    axes.set(xlabel=STEP, ylabel="tokens that change no more, %", ylim=(0, 102))
    whole_numbers(axes.xaxis)
    sigmas(axes, entries[-1]["trajectory"]["sigma"])
    return finished(figure, axes)


def settled_by_position(content: Content) -> Figure:
    """Whether texts settle from the left, the middle or everywhere at once."""
    figure, axes = panel()
    entries = content["checkpoints"]
    for place, entry in enumerate(entries):
        settled = entry["trajectory"]["settling"]["by_position"]
        style = {**aged(place, entries), "marker": None}
        axes.plot(numbered(settled["median"]), gaps(settled["median"]), **style)
        if place == len(entries) - 1:
            band(axes, settled, style["color"])
    axes.set(
        xlabel="position in the text", ylabel="step at which it settles, median", ylim=(0, None)
    )
    whole_numbers(axes.xaxis, axes.yaxis)
    return finished(figure, axes)


def noise_scale(content: Content) -> Figure | None:
    """Quality and diversity at each scale of the initial noise."""
    entries = [entry for entry in content["checkpoints"] if entry["noise_scale"]]
    if not entries:
        return None
    newest = entries[-1]["noise_scale"]
    wanted = [(group, key) for group in ("quality", "diversity") for key in newest[0][group]]
    shown = [(group, key) for group, key in wanted if not _reference(key)]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure, charts = panels(len(shown), (3.1 * columns, 2.5 * rows + 0.5), columns)
    for axes, (group, key) in zip(charts, shown, strict=True):
        for place, entry in enumerate(entries):
            swept = entry["noise_scale"]
            values = gaps([row[group].get(key) for row in swept])
            style = aged(place, entries)
            axes.plot([row["scale"] for row in swept], values, **style)
        human = [row["quality"].get(other) for row in newest for other in _references(key)]
        human = [value for value in human if value is not None]
        if human and group == "quality":
            reference(axes, human[-1], "real text")
        axes.set_title(key if group == "quality" else f"{key}, of tokens", fontsize=10)
    for axes in charts[max(len(shown) - columns, 0) :]:
        axes.set_xlabel("scale of the initial noise")
    legend(figure, charts)
    return figure


def _references(key: str) -> tuple[str, ...]:
    """The names under which metrics say what real text scores."""
    return f"human_{key}", f"{key}_expected"


def _reference(key: str) -> bool:
    return key.startswith("human_") or key.endswith("_expected")


def training(content: Content) -> Figure | None:
    """The summary's numbers against the training step."""
    entries = [entry for entry in content["checkpoints"] if entry["step"] is not None]
    if len(entries) < 2:
        return None
    tables = [numbers(entry) for entry in entries]
    shown = [key for key in tables[0] if all(table[key] is not None for table in tables)]
    figure, charts = panels(len(shown), (9.3, 5.4), 3)
    for place, (axes, key) in enumerate(zip(charts, shown, strict=True)):
        values = gaps([table[key] for table in tables])
        axes.plot([entry["step"] for entry in entries], values, **look(place))
        axes.set_title(TITLES[key], fontsize=10)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4, integer=True))
    figure.supxlabel("training step", fontsize=10)
    return figure


TITLES: Mapping[str, str] = {
    "loss": "loss, nats per token",
    "gain": "context gain, nats per token",
    "switches": "token switches a text",
    "settled at": "mean step at which tokens settle",
    "last entropy": "entropy at the last step, nats",
    "score turns": "turn of the score, degrees a step",
}

Plot = Callable[[Content], Figure | None]
BEFORE: Mapping[str, Plot] = {
    "training": training,
    "loss": loss,
    "context-gain": gain,
    "warp-cdf": warp_cdf,
    "warp-density": warp_density,
}
AFTER: Mapping[str, Plot] = {
    "settled": settled,
    "settled-by-position": settled_by_position,
    "noise-scale": noise_scale,
}

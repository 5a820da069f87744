"""How the pictures of an analysis draw: lines that age, bands, and the noise along the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlmkit.report import MARKERS, faded, legend
from dlmkit_viewers.summary import name

Entry = Mapping[str, Any]
Curve = Mapping[str, Sequence[float | None]]

SIGMA = r"noise-to-signal ratio $\sigma$"


def label(entry: Entry) -> str:
    """A checkpoint as legends name it; a step alone would read like one of the grid's."""
    return f"training {name(entry)}" if entry["step"] is not None else name(entry)


def aged(place: int, entries: Sequence[Entry]) -> dict[str, Any]:
    """How the curve of a checkpoint looks: older ones fade.

    Of more than six, about five are named: the newest, and back from it at even distances.
    """
    count = len(entries)
    named = (count - 1 - place) % (1 if count <= 6 else -(-count // 5)) == 0
    return {
        **faded(place, count),
        "marker": MARKERS[place % len(MARKERS)],
        "ms": 4,
        "label": label(entries[place]) if named else None,
    }


def numbered(values: Sequence[float | None]) -> range:
    """The steps or positions of ``values``, which count from 1."""
    return range(1, len(values) + 1)


def gaps(values: Sequence[float | None]) -> list[float]:
    """None as NaN, which is not drawn."""
    return [float("nan") if value is None else value for value in values]


def band(axes: Axes, curve: Curve, colour: Any) -> None:
    """The quartiles of ``curve``."""
    low, high = gaps(curve["low"]), gaps(curve["high"])
    look: dict[str, Any] = {"color": colour, "alpha": 0.2, "lw": 0, "label": "middle half of texts"}
    axes.fill_between(numbered(low), low, high, **look)


def sigmas(axes: Axes, sigma: Sequence[float]) -> None:
    """What ratio the steps read x at, along the top."""
    places = sorted({round(i * (len(sigma) - 1) / 6) for i in range(7)})
    top = axes.secondary_xaxis("top")
    top.set_xticks([place + 1 for place in places], [f"{sigma[place]:.3g}" for place in places])
    top.set_xlabel(SIGMA)


def finished(figure: Figure, axes: Axes) -> Figure:
    """``figure``, a lone panel, with its legend."""
    legend(figure, [axes])
    return figure

"""Reports as one file: pages that need nothing from outside, for light and for dark readers.

Colours are told apart by most colour-blind readers, and no series differs by colour alone.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlmkit.shown import escape

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
    "#8c8c8c", "#b22222", "#7a5cc0", "#6b8e23", "#a0714f", "#20b2aa",
)  # fmt: skip
"""The first six are told apart by most colour-blind readers (Okabe and Ito); all show on white and
on near-black. Markers tell apart the same series."""

MARKERS = "osD^vP*X<>hp"

THEMES: Mapping[str, Mapping[str, str]] = {
    "light": {"ink": "#1b1f24", "paper": "#ffffff"},
    "dark": {"ink": "#e6e6e6", "paper": "#16181c"},
}

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --rule: #d0d7de; --soft: #f6f8fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --rule: #3a3f46; --soft: #20242a }
}
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap }
th:first-child, td:first-child { text-align: left }
thead th { background: var(--soft) }
figure { margin: 1.5rem 0 } figcaption { font-size: 13px; opacity: .8 }
img { max-width: 100%; height: auto }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: 12px }
"""


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """A whole HTML page; ``body`` is HTML, ``style`` is added to :data:`STYLE`."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def picture(light: bytes, dark: bytes, caption: str) -> str:
    """A picture, given as PNG twice, that follows the reader's colour scheme."""
    words = escape(caption)
    return (
        "<figure><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_embedded(dark)}">'
        f'<img src="{_embedded(light)}" alt="{words}"></picture>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _embedded(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls by itself where it is too wide."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<div class='wide'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def png(figure: Figure, dpi: int = 120) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def embedded_json(value: Any) -> str:
    """``value`` as JSON that may stand in a script element, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@contextmanager
def themed(theme: str) -> Iterator[None]:
    """Figures made inside have the colours of ``theme``, a key of :data:`THEMES`."""
    ink, paper = THEMES[theme]["ink"], THEMES[theme]["paper"]
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    papered = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    style: Any = {**dict.fromkeys(inked, ink), **dict.fromkeys(papered, paper), "font.size": 10.0}
    with matplotlib.rc_context(style):
        yield


def panel(size: tuple[float, float] = (8.4, 4.6)) -> tuple[Figure, Axes]:
    """A figure of one picture."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """In as many columns as fit; the figure grows by what it takes beyond three lines."""
    inches = 0.6 + 0.09 * max(map(len, names), default=0)
    columns = max(1, min(4, len(names), int(figure.get_figwidth() / inches)))
    lines = -(-len(names) // columns)
    figure.set_figheight(figure.get_figheight() + 0.22 * max(0, lines - 3))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def plain_numbers(*axes: matplotlib.axis.Axis) -> None:
    """Numbers instead of powers of ten on logarithmic axes, and few enough to be read."""
    for axis in axes:
        axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def whole_numbers(*axes: matplotlib.axis.Axis) -> None:
    """Ticks at integers alone, where a value counts something: steps, positions."""
    for axis in axes:
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True, min_n_ticks=1))

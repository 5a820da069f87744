"""Pages, tables and pictures, for light and for dark readers; pages need nothing from outside.

Colours are told apart by most colour-blind readers, and no series differs by colour alone.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
GREY = COLOURS[6]

THEMES: Mapping[str, Mapping[str, str]] = {
    "light": {"ink": "#1b1f24", "paper": "#ffffff"},
    "dark": {"ink": "#e6e6e6", "paper": "#16181c"},
}
DARK = THEMES["dark"]["paper"]

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
    """A whole HTML page under its title; ``body`` is HTML, ``style`` is added to :data:`STYLE`."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body>"
        + "\n".join((f"<h1>{escape(title)}</h1>", *body))
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


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table in Markdown; all columns but the first ``texts`` are numbers, to the right."""
    lines = [head, [*["---"] * texts, *["--:"] * (len(head) - texts)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def estimate(value: float, ends: Sequence[float], digits: int) -> str:
    """A number and the ends of its interval."""
    value, low, high = (round(number, digits) + 0.0 for number in (value, *ends))  # no minus zero
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def facts(*about: Mapping[str, Any]) -> str:
    """What a page says of how it came about, a line each."""
    lines = (
        f"{key}: {value if isinstance(value, str) else json.dumps(value, default=str)}"
        for facts in about
        for key, value in facts.items()
    )
    return f"<h2>Protocol</h2>\n<pre>{escape(chr(10).join(lines))}</pre>"


Draw = Callable[[], Figure | None]


def drawn(plots: Mapping[str, Draw]) -> dict[str, dict[str, bytes]]:
    """By theme, what ``plots`` draw in its colours, as PNG, but for what has no data."""
    pictures: dict[str, dict[str, bytes]] = {}
    for theme in THEMES:
        with themed(theme):
            figures = {name: plot() for name, plot in plots.items()}
        pictures[theme] = {name: png(f) for name, f in figures.items() if f is not None}
    return pictures


def figures(
    pictures: Mapping[str, Mapping[str, bytes]], captions: Mapping[str, str]
) -> Iterator[str]:
    """What :func:`drawn` gave, for a page."""
    for name, light in pictures["light"].items():
        yield picture(light, pictures["dark"][name], captions[name])


def png(figure: Figure) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
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
    figure, (axes,) = panels(1, size)
    return figure, axes


def panels(
    count: int, size: tuple[float, float], columns: int | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` pictures on grids, ``columns`` in a line (default: all of them)."""
    columns = columns or count
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(-(-count // columns), columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    for used in axes[:count]:
        used.grid(alpha=0.25)
    return figure, axes[:count]


def look(place: int) -> dict[str, Any]:
    """Colour and marker of series number ``place``: another marker where colours begin again."""
    mark = MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]
    return {"color": COLOURS[place % len(COLOURS)], "marker": mark, "ms": 5, "lw": 1.6}


def faded(place: int, count: int) -> dict[str, Any]:
    """Colour and width of curve ``place`` of ``count`` in order of age: older ones fade, and the
    newest stands out from the page."""
    age, dark = (place + 1) / count, matplotlib.rcParams["axes.facecolor"] == DARK
    share = 0.35 + 0.55 * age if dark else 0.9 - 0.65 * age
    return {
        "color": matplotlib.colormaps["viridis"](share),
        "lw": 2.4 if place == count - 1 else 1.3,
    }


def reference(axes: Axes, value: float, words: str) -> None:
    """A dotted line across, to compare with."""
    axes.axhline(value, ls=":", lw=1.4, color=GREY, label=words)


def real(axes: Axes, x: float, y: float, words: str) -> None:
    """Where text that people wrote stands, as a cross."""
    axes.plot(x, y, ls="none", marker="X", ms=10, color=COLOURS[1], label=words)


def reach(numbers: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """How far the interval of each number reaches below and above its value; 0 without one."""
    known = [
        number if number["low"] is not None else dict.fromkeys(number, 0.0) for number in numbers
    ]
    return [
        [max(number["value"] - number["low"], 0.0) for number in known],
        [max(number["high"] - number["value"], 0.0) for number in known],
    ]


def legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend below, each name once; none for a lone name."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, word in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(word, handle)
    if len(handles) > 1:
        legend_below(figure, list(handles.values()), list(handles))


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

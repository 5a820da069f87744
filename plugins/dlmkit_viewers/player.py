"""A text's way as one HTML page: a slider over the steps, play and pause, values on hovering.

The page needs nothing from outside. Tokens arrive as text in JSON and are put in as text, so
nothing that a model writes is read as HTML.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.resources import files
from typing import Any

from dlmkit.report import embedded_json, page
from dlmkit.shown import escape
from dlmkit_viewers.colours import STEPS, hexadecimal, ink, scale
from dlmkit_viewers.film import Film

CODE = "player.js"

STYLE = """
#text { font: 17px/1.9 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; margin: 1rem 0 }
#text span { padding: .15em 0; cursor: default }
#text .given { border-bottom: 2px dotted var(--ink) }
#text .changed { text-decoration: underline; text-decoration-thickness: 2px }
#text .here { outline: 2px solid var(--ink) }
#bar { display: flex; gap: .6rem; align-items: center; flex-wrap: wrap }
#bar button { font: inherit; min-width: 5.5rem }
#track { position: relative; flex: 1; min-width: 14rem; padding-bottom: 1.1rem }
#track input { width: 100%; margin: 0 }
#track i { position: absolute; top: 1.25rem; width: 2px; height: .7rem; background: var(--ink) }
#facts, #hover { font-variant-numeric: tabular-nums; min-height: 1.5em }
#scale { display: flex; align-items: center; gap: .5rem; font-size: 13px }
#scale b { display: inline-block; width: 1.1rem; height: 1rem }
#marks > * { font: inherit; font-size: 13px; margin: .15rem .4rem .15rem 0 }
"""


def player(film: Film, speed: float) -> str:
    """The whole page; it starts paused at the last step."""
    title = f"dlmkit view: text {film.row}"
    colours = [scale(place / (STEPS - 1)) for place in range(STEPS)]
    swatches = "".join(f'<b style="background:{hexadecimal(c)}"></b>' for c in colours)
    code = files("dlmkit_viewers").joinpath(CODE).read_text(encoding="utf-8")
    body = [
        '<p id="facts" aria-live="off"></p>',
        '<div id="bar"><button id="play" type="button">Play</button><div id="track">'
        f'<input id="step" type="range" min="1" max="{film.steps}" value="{film.steps}" '
        'aria-label="step"></div></div>',
        '<div id="marks"></div>',
        '<div id="text"></div>',
        '<p id="hover">Point at a token to read its values.</p>',
        f'<div id="scale"><span>{escape(film.by)} 0</span><span>{swatches}</span>'
        f"<span>{film.most:.3g}</span></div>",
        "<p>Underlined: changed in this step. Dotted: given. Keys: space, left, right.</p>",
        f'<script type="application/json" id="film">{embedded_json(_data(film, speed))}</script>',
        f"<script>{code}</script>",
    ]
    return page(title, body, STYLE)


def _data(film: Film, speed: float) -> dict[str, Any]:
    """The film with each different token spelt once."""
    words = sorted({token for tokens in film.tokens for token in tokens})
    number = {word: place for place, word in enumerate(words)}
    colours = [scale(place / (STEPS - 1)) for place in range(STEPS)]
    return {
        "words": words,
        "tokens": [[number[token] for token in tokens] for tokens in film.tokens],
        "given": list(film.given),
        "sigma": list(film.sigma),
        "statistics": {name: list(values) for name, values in film.statistics.items()},
        "positions": {name: list(values) for name, values in film.positions.items()},
        "by": film.by,
        "most": film.most,
        "marks": [{**asdict(mark), "words": str(mark)} for mark in film.marks],
        "paper": [hexadecimal(colour) for colour in colours],
        "ink": [hexadecimal(ink(colour)) for colour in colours],
        "speed": speed,
    }

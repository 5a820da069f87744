"""A text's way in the terminal: played, or as lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.style import Style
from rich.text import Text

from dlmkit.analysis.colours import hexadecimal, ink, scale
from dlmkit.analysis.film import Film


def play(film: Film, console: Console, speed: float) -> None:
    """Show ``speed`` steps a second on a terminal, cut to its height; the last one stays, whole."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for step in range(film.steps):
            if step:
                time.sleep(1.0 / speed)
            live.update(frame(film, step), refresh=True)
    console.print(frame(film, film.steps - 1))


def frame(film: Film, step: int) -> Group:
    """One step: a headline, the text, the scale, and the marks of rules.

    The background shows how unsure a token is and bold that it has just changed, so that a
    terminal without colours still shows the change. Given tokens are underlined.
    """
    head = Text(film.headline(step), style="bold")
    body = Text(no_wrap=False, overflow="fold")
    for place, token in enumerate(film.tokens[step]):
        body.append(token, style=_style(film, step, place))
    marks = [Text(mark.at(step)) for mark in film.marks]
    return Group(head, body, legend(film), *marks)


def _style(film: Film, step: int, place: int) -> Style:
    share = film.share(step, place)
    if share is None:
        return Style(underline=True)
    paper = scale(share)
    return Style(
        color=hexadecimal(ink(paper)),
        bgcolor=hexadecimal(paper),
        bold=film.changed(step, place),
    )


def legend(film: Film) -> Text:
    """The scale of colours, from 0 to the largest value of this text."""
    words = Text(f"{film.by} 0 ")
    for place in range(12):
        words.append("  ", style=Style(bgcolor=hexadecimal(scale(place / 11))))
    return words.append(f" {film.most:.3g}; bold: just changed")


def lines(film: Film) -> Iterator[str]:
    """A line a step, for pipes and files."""
    width = len(str(film.steps))
    mean = film.statistics.get(film.by, [None] * film.steps)
    for step, tokens in enumerate(film.tokens):
        value = "-" if mean[step] is None else f"{mean[step]:.3f}"
        halts = "".join(f"  [{m.rule}]" for m in film.marks if m.step == step + 1)
        yield f"{step + 1:>{width}}  {film.by} {value}  {''.join(tokens)}{halts}"
    yield from (str(mark) for mark in film.marks)

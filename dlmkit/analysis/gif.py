"""A text's way as an animated GIF, in cells of one width."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len

from dlmkit.analysis.colours import Colour, ink, scale
from dlmkit.analysis.film import Film
from dlmkit.report import THEMES

COLUMNS = 64
"""Cells of a line: as wide as a post or a slide can show."""

SIZE, EDGE = 18, 16  # pixels: of the letters, and around everything
HOLD = 3.0  # seconds that the last step stays
GONE: Colour = (0x8C, 0x8C, 0x8C)


@dataclass(frozen=True)
class Page:
    """Where things go: letters of one width, and colours."""

    font: ImageFont.FreeTypeFont
    cell: int
    line: int
    ink: Colour
    paper: Colour

    @staticmethod
    def of(theme: str) -> Page:
        """A page of ``theme``, in the typeface that matplotlib brings."""
        path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"
        font = ImageFont.truetype(str(path), SIZE)
        colours = (_colour(THEMES[theme][key]) for key in ("ink", "paper"))
        return Page(font, round(font.getlength("M")), round(SIZE * 1.5), *colours)

    def write(
        self, draw: ImageDraw.ImageDraw, line: int, column: float, text: str, colour: Colour
    ) -> None:
        """``text`` from the cell at ``line`` and ``column`` on, each character in its own cells."""
        x, y = self._corner(line, column)
        for character in text:
            draw.text((x, y + self.line // 2), character, fill=colour, font=self.font, anchor="lm")
            x += cell_len(character) * self.cell

    def fill(
        self,
        draw: ImageDraw.ImageDraw,
        line: int,
        column: float,
        width: float,
        colour: Colour,
        thin: bool = False,
    ) -> None:
        """``width`` cells in ``colour``; ``thin``: only their middle third."""
        x, y = self._corner(line, column)
        inset = self.line // 3 if thin else 0
        end = (x + round(width * self.cell) - 1, y + self.line - 1 - inset)
        draw.rectangle(((x, y + inset), end), fill=colour)

    def underline(
        self, draw: ImageDraw.ImageDraw, line: int, column: int, width: int, colour: Colour
    ) -> None:
        """A line under ``width`` cells."""
        x, y = self._corner(line, column)
        y += self.line - 4
        draw.line(((x + 1, y), (x + width * self.cell - 2, y)), fill=colour, width=2)

    def _corner(self, line: int, column: float) -> tuple[int, int]:
        return EDGE + round(column * self.cell), EDGE + line * self.line


def _colour(text: str) -> Colour:
    red, green, blue = (int(text[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


def animation(film: Film, speed: float, theme: str = "light") -> bytes:
    """The bytes of a GIF that shows ``speed`` steps a second, over and over.

    Characters that the typeface lacks (East Asian ones among them) are shown as boxes.
    """
    page = Page.of(theme)
    frames = [picture(film, step, page) for step in range(film.steps)]
    palette = _palette([frames[0], frames[film.steps // 2], frames[-1]])
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    durations = [round(1000 / speed)] * film.steps
    durations[-1] = max(durations[-1], round(1000 * HOLD))
    buffer = io.BytesIO()
    settings = {"append_images": others, "duration": durations, "loop": 0, "disposal": 1}
    first.save(buffer, "GIF", save_all=True, **settings)
    return buffer.getvalue()


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """One set of colours for all frames, so that nothing flickers."""
    width, height = frames[0].size
    together = Image.new("RGB", (width, height * len(frames)))
    for place, frame in enumerate(frames):
        together.paste(frame, (0, place * height))
    return together.quantize(128)


def picture(film: Film, step: int, page: Page) -> Image.Image:
    """One step as an image; all steps of a film have one size."""
    height = 1 + max(piece.line for tokens in film.tokens for piece in layout(tokens))
    rows = height + 5 + len(film.marks)
    size = (COLUMNS * page.cell + 2 * EDGE, rows * page.line + 2 * EDGE)
    image = Image.new("RGB", size, page.paper)
    draw = ImageDraw.Draw(image)
    page.write(draw, 0, 0, film.headline(step), page.ink)
    for piece in layout(film.tokens[step]):
        _token(draw, page, film, step, piece)
    _foot(draw, page, film, step, height + 3)
    return image


class Piece(NamedTuple):
    """What stands of one token on one line: ``place`` is the token's, the others in cells."""

    place: int
    line: int
    column: int
    text: str


def layout(tokens: Sequence[str], columns: int = COLUMNS) -> list[Piece]:
    """``tokens`` one after another in lines of ``columns`` cells; wide characters take two."""
    pieces: list[Piece] = []
    line = column = 0
    for place, token in enumerate(tokens):
        for character in token:
            width = cell_len(character)
            if column + width > columns:
                line, column = line + 1, 0
            last = pieces[-1] if pieces else None
            if last is not None and (last.place, last.line) == (place, line):
                pieces[-1] = last._replace(text=last.text + character)
            else:
                pieces.append(Piece(place, line, column, character))
            column += width
    return pieces


def _token(draw: ImageDraw.ImageDraw, page: Page, film: Film, step: int, piece: Piece) -> None:
    """A piece on the colour of its value; a line under it where it is given or just changed."""
    share, width = film.share(step, piece.place), cell_len(piece.text)
    colour = page.ink
    if share is not None:
        paper = scale(share)
        colour = ink(paper)
        page.fill(draw, piece.line + 2, piece.column, width, paper)
    page.write(draw, piece.line + 2, piece.column, piece.text, colour)
    if share is None or film.changed(step, piece.place):
        page.underline(draw, piece.line + 2, piece.column, width, colour)


def _foot(draw: ImageDraw.ImageDraw, page: Page, film: Film, step: int, line: int) -> None:
    """The scale of colours, the way gone, and the marks of rules."""
    words = f"{film.by} 0 "
    page.write(draw, line, 0, words, page.ink)
    for place in range(12):
        page.fill(draw, line, len(words) + place, 1, scale(place / 11))
    rest = f"{film.most:.3g}; underlined: just changed"
    page.write(draw, line, len(words) + 13, rest, page.ink)
    gone = COLUMNS * (step + 1) / film.steps
    page.fill(draw, line + 1, 0, gone, GONE, thin=True)
    for place, mark in enumerate(film.marks):
        if mark.step is not None:
            page.fill(draw, line + 1, COLUMNS * mark.step / film.steps - 0.25, 0.5, page.ink)
        page.write(draw, line + 2 + place, 0, mark.at(step)[:COLUMNS], page.ink)

"""Terminal, GIF and HTML player show the same film."""

import io
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from dlmkit.analysis import terminal
from dlmkit.analysis.colours import scale
from dlmkit.analysis.film import Film, Mark, film
from dlmkit.analysis.gif import HOLD, Page, animation, layout, picture
from dlmkit.analysis.player import player

FILM = Film(
    row=3,
    tokens=[["a", " b", "東"], ["a", " c", "東"], ["a", " c", "</script>"]],
    given=[True, False, False],
    sigma=[9.0, 3.0, 1.0],
    statistics={"entropy": [1.5, 0.5, 0.25]},
    positions={"entropy": [[0.0, 2.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.0, None]]},
    by="entropy",
    most=2.0,
    marks=[Mark("fixed:step=2", 2), Mark("kl:threshold=0", None)],
)


def shown(step, **options):
    console = Console(file=io.StringIO(), width=60, force_terminal=True, **options)
    console.print(terminal.frame(FILM, step))
    return console.file.getvalue()


def test_a_frame_in_colour():
    text = shown(1, color_system="truecolor")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert plain.splitlines() == [
        "text 3, step 2 of 3, sigma 3, entropy 0.500, 1 changed",
        "a c東",
        f"entropy 0 {24 * ' '} 2; bold: just changed",
        "\u25a0 fixed:step=2 halts it after step 2",
        "\u25a1 kl:threshold=0 never halts it",
    ]
    assert "\x1b[4ma" in text  # given: underlined
    changed, kept = re.findall(r"\x1b\[([0-9;]*)m(?: c|東)", text)
    assert changed.startswith("1;")
    assert not kept.startswith("1;")
    assert changed.removeprefix("1;") == kept  # both have an entropy of 0.5


def test_no_colour(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(1, color_system="truecolor")
    codes = set(re.findall(r"\x1b\[([0-9;]*)m", text))
    assert codes <= {"0", "1", "4"}
    assert "\x1b[1m c" in text


def test_lines_where_there_is_no_terminal():
    assert list(terminal.lines(FILM)) == [
        "1  entropy 1.500  a b東",
        "2  entropy 0.500  a c東  [fixed:step=2]",
        "3  entropy 0.250  a c</script>",
        "fixed:step=2 halts it after step 2",
        "kl:threshold=0 never halts it",
    ]


def test_playing_waits_between_steps(monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    console = Console(file=io.StringIO(), width=60, force_terminal=True)
    terminal.play(FILM, console, 4.0)
    assert waits == [0.25, 0.25]
    assert "step 3 of 3" in console.file.getvalue()


@given(st.lists(st.text(st.sampled_from("ab 東é"), min_size=1), max_size=30), st.integers(2, 9))
def test_every_character_has_its_own_cells(tokens, columns):
    pieces = layout(tokens, columns)
    assert "".join(piece.text for piece in pieces) == "".join(tokens)
    end = (0, 0)
    for piece in pieces:
        assert (piece.line, piece.column) >= end
        end = (piece.line, piece.column + cell_len(piece.text))
        assert end[1] <= columns
        assert piece.text in tokens[piece.place]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_an_animation_has_a_frame_a_step(theme):
    image = Image.open(io.BytesIO(animation(FILM, 5.0, theme)))
    assert (image.format, image.n_frames, image.info["loop"]) == ("GIF", 3, 0)
    durations = []
    for step in range(3):
        image.seek(step)
        durations.append(image.info["duration"])
    assert durations == [200, 200, 1000 * HOLD]
    brightness = image.convert("L").getpixel((2, 2))
    assert brightness > 240 if theme == "light" else brightness < 40


def test_a_picture_shows_values_and_changes():
    page = Page.of("light")
    images = [picture(FILM, step, page) for step in range(3)]
    assert len({image.size for image in images}) == 1
    colours = [{colour for _, colour in image.getcolors(2**16)} for image in images]
    assert scale(1.0) in colours[0]  # an entropy of 2 of 2
    assert scale(0.25) in colours[1] - {scale(1.0)}


def embedded(text):
    return json.loads(re.search(r'id="film">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_holds_the_film(markov):
    one = film(markov, 5)
    data = embedded(player(one, 6.0))
    tokens = [[data["words"][number] for number in line] for line in data["tokens"]]
    assert tokens == [list(line) for line in one.tokens]
    assert data["positions"] == {name: list(v) for name, v in one.positions.items()}
    assert (data["given"], data["by"], data["speed"]) == (list(one.given), "entropy", 6.0)


def test_the_page_needs_nothing_and_runs_nothing_of_the_text():
    text = player(replace(FILM, by="entropy"), 8.0)
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(", text)
    assert text.count("</script>") == 2
    assert "</script>" in embedded(text)["words"]
    assert "prefers-color-scheme: dark" in text
    assert [mark["step"] for mark in embedded(text)["marks"]] == [2, None]
    assert 'max="3"' in text

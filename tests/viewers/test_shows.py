"""Lines and HTML player show the same film."""

import json
import re
from dataclasses import replace

from dlmkit_viewers.film import Film, Halt, film
from dlmkit_viewers.player import player

FILM = Film(
    row=3,
    tokens=[["a", " b", "東"], ["a", " c", "東"], ["a", " c", "</script>"]],
    given=[True, False, False],
    sigma=[9.0, 3.0, 1.0],
    statistics={"entropy": [1.5, 0.5, 0.25]},
    positions={"entropy": [[0.0, 2.0, 1.0], [0.0, 0.5, 0.5], [0.0, 0.0, None]]},
    by="entropy",
    most=2.0,
    marks=[Halt("fixed:step=2", 2), Halt("kl:threshold=0", None)],
)


def test_a_line_a_step_and_where_rules_halt():
    assert list(FILM.lines()) == [
        "1  entropy 1.500  a b東",
        "2  entropy 0.500  a c東  [fixed:step=2]",
        "3  entropy 0.250  a c</script>",
        "fixed:step=2 halts it after step 2",
        "kl:threshold=0 never halts it",
    ]


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

"""One text of a trace, its values and marks, and text that cannot do harm."""

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmkit.errors import UsageError
from dlmkit.exits.replay import halting_steps
from dlmkit_viewers.colours import STEPS, ink, luminance, scale
from dlmkit_viewers.film import Halt, film, visible


def test_a_film_is_the_text(markov):
    shown = film(markov, 2)
    assert (shown.row, shown.steps, shown.by) == (2, 10, "entropy")
    for step in range(10):
        words = [f" w{token}" for token in markov.ids[2, step].tolist()]
        assert list(shown.tokens[step]) == words
    values = markov.positions["entropy"][2].double()
    assert shown.most == pytest.approx(float(values.max()), rel=1e-4)
    assert shown.positions["margin"][9][0] == pytest.approx(
        float(markov.positions["margin"][2, 9, 0]), rel=1e-4
    )


def test_given_tokens_have_no_value_and_padding_is_left_out(markov):
    shown = film(markov, 6)
    assert shown.given == [False, True, False]
    assert {len(line) for line in shown.tokens} == {3}
    assert {line[1] for line in shown.tokens} == {" w1"}


def test_marks_are_where_rules_halt(markov, build):
    rules = {"a": build("exit", "entropy", threshold=0.5), "b": build("exit", "fixed", step=4)}
    for row in range(5):
        shown = film(markov, row, rules=rules)
        for mark in shown.marks:
            step = int(halting_steps(markov, rules[mark.rule])[row])
            assert mark.step == (step if step < 10 else None)
    assert shown.marks[1] == Halt("b", 4)
    assert str(shown.marks[1]) == "b halts it after step 4"


def test_refusals(markov, build):
    with pytest.raises(UsageError, match="--row 9: this trace holds the texts 0 to 6"):
        film(markov, 9)
    with pytest.raises(UsageError, match=r"holds no statistic by position.*--positions entropy"):
        film(replace(markov, positions={}), 0)
    with pytest.raises(UsageError, match=r"by position entropy, margin, but not jeffreys"):
        film(markov, 0, by="jeffreys")
    with pytest.raises(UsageError, match="does not say what its tokens read as"):
        film(replace(markov, about={}), 0)
    with pytest.raises(UsageError, match="lacks what the rule reads: jeffreys"):
        film(markov, 0, rules={"j": build("exit", "jeffreys", threshold=0.1)})
    with pytest.raises(UsageError, match=r"--exit kl:threshold=1e-6: .* noise floor of kl"):
        film(markov, 0, rules={"kl:threshold=1e-6": build("exit", "kl", threshold=1e-6)})


@given(st.text())
def test_visible_text_moves_no_cursor(text):
    shown = visible(text)
    assert shown
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_visible_text_keeps_what_can_be_seen():
    assert visible(" Straße 東京") == " Straße 東京"
    assert visible("a\n") == "a\u23ce"
    assert visible("\x1b[31m") == "\u241b[31m"
    assert visible("\u202eevil") == "\ufffdevil"
    assert visible("") == "\u2205"


def test_the_scale_grows_brighter_and_can_be_read_on():
    colours = [scale(place / (STEPS - 1)) for place in range(STEPS)]
    bright = [luminance(colour) for colour in colours]
    assert bright == sorted(bright)
    assert len(set(colours)) == STEPS
    for colour in colours:
        low, high = sorted((luminance(colour), luminance(ink(colour))))
        assert (high + 0.05) / (low + 0.05) >= 4.5
    assert luminance((255, 255, 255)) == pytest.approx(1.0)

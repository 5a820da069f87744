"""YAML 1.2 scalars, positions, and a writer that reads back identically."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmkit.recipe.problems import Mark
from dlmkit.recipe.write import dump, inline
from dlmkit.recipe.yaml import parse, scalar


def read(text: str):
    problems = []
    node = parse(text, lambda line, column: Mark(0, "x", line, column), problems)
    assert problems == []
    return node


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5e3", -500.0),
        ("007", 7),
        ("-0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("Null", None),
        ("", None),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("2001-01-01", "2001-01-01"),
        ("1:30", "1:30"),
        ("0b1", "0b1"),
        ("1e", "1e"),
        ("9" * 5000, math.inf),
    ],
)
def test_scalars_of_the_core_schema(text, value):
    assert (type(scalar(text)), scalar(text)) == (type(value), value)


def test_quoted_scalars_are_text():
    plain = read("a: '5'\nb: \"true\"\nc: |\n  1\nd: >-\n  ~\n").plain()
    assert plain == {"a": "5", "b": "true", "c": "1\n", "d": "~"}


def test_positions_count_from_one():
    root = read("a: 1\nb:\n  - x\n  - {c: 2}\n")
    assert root.find(("b", 1, "c"))[0].mark == Mark(0, "x", 4, 9)
    assert root.key_mark(("b", 1, "c")) == Mark(0, "x", 4, 6)
    assert root.find(("b", 7, "c")) == (root.child("b"), ("b",))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "1e5",
        ".5e3",
        "null",
        "~",
        "0x1",
        "a: b",
        "a #b",
        "- a",
        "---",
        "...",
        "'",
        '"',
        "a,b",
        "[",
        "%",
    ]
)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | TEXT | st.just(-0.0)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


@given(VALUES)
def test_what_is_written_reads_back(value):
    for text in (dump(value), inline(value)):
        again = read(text)
        assert again is not None
        assert repr(again.plain()) == repr(value)
    assert "\n" not in inline(value)


def test_not_a_number_reads_back():
    assert math.isnan(read(dump({"a": math.nan})).plain()["a"])


def test_recipes_are_written_in_block_style():
    value = {"a": {"b": [1, 2], "c": [{"d": 1e-05, "e": []}]}, "f": {}}
    assert dump(value) == "a:\n  b: [1, 2]\n  c:\n    - d: 1.0e-05\n      e: []\nf: {}\n"

"""Short forms of parts."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dlmkit.errors import RecipeError, UsageError
from dlmkit.plugin import Part
from dlmkit.recipe.load import resolve_text
from dlmkit.recipe.short import overrides, parse_part, split
from dlmkit.recipe.write import inline
from dlmkit.registry.lookup import Registry

NAMES = st.from_regex(r"[a-z][a-z0-9.-]{0,8}(:[a-z][a-z0-9-]{0,8})?", fullmatch=True)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.from_regex("[a-z]{1,4}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=5,
)
OPTIONS = st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), VALUES, max_size=3)
PARTS = st.builds(lambda use, options: Part(use=use, options=options), NAMES, OPTIONS)


def short(part):
    values = ";".join(f"{key}={inline(value)}" for key, value in part.options.items())
    return f"{part.use}:{values}" if values else part.use


def test_names_and_options():
    assert parse_part("euler") == Part(use="euler")
    assert parse_part("samplers:euler") == Part(use="samplers:euler")
    assert parse_part("ancestral:eta=0.5") == Part(use="ancestral", options={"eta": 0.5})
    assert parse_part("samplers:edm-churn:s_churn=4;s_noise=1e-3") == Part(
        use="samplers:edm-churn", options={"s_churn": 4, "s_noise": 1e-3}
    )
    nested = parse_part("any:rules=[{use: entropy, with: {threshold: 0.1}}, {use: 'a:b'}]")
    assert nested.options["rules"] == [
        {"use": "entropy", "with": {"threshold": 0.1}},
        {"use": "a:b"},
    ]


@given(PARTS)
@example(Part(use="a", options={"b": ['"'], "c": {"d": None}}))
def test_every_part_has_a_short_form(part):
    assert parse_part(short(part)) == part


@given(st.lists(PARTS, min_size=1, max_size=3))
def test_lists_are_separated_by_commas(parts):
    assert list(map(parse_part, split(",".join(map(short, parts)), ","))) == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a name"),
        (" :eta=1", "expected a name"),
        ("eta=1", "expected a name"),
        ("euler:", "expected a name"),
        ("ancestral:eta=0.5;", "expected option=value, not ''"),
        ("ancestral:eta=0.5;x", "expected option=value, not 'x'"),
        ("ancestral:eta=1;eta=2", "'eta' is given twice"),
        ("ancestral:eta=[1", "not YAML"),
        ("ancestral:eta=&a 1", "anchors"),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_part(text)


RECIPE = """
data: {use: "grammar:grammar"}
schedule: {use: "cdcd:variance-exploding"}
space: {use: "cdcd:normalised"}
network: {use: "cdcd:transformer"}
masking: {use: "cdcd:none"}
objective: {use: "cdcd:score-interpolation"}
sampler: {use: ancestral, with: {eta: 0.25}}
exit: {use: fixed, with: {step: 3}}
guidance: [{use: score-temperature}]
train: {steps: 1}
"""


def resolved(**words):
    registry = Registry.load(third_party=False)
    return resolve_text(RECIPE, "test", overrides(**words), registry).config


def test_short_forms_override_a_recipe():
    config = resolved(
        sampler="heun",
        grid="karras:rho=3",
        exit="entropy:threshold=0.05",
        guidance=["classifier-free:scale=1.5", "score-temperature:temperature=0.9"],
    )
    assert config.sampler == Part(use="samplers:heun", options={})
    assert config.grid == Part(use="samplers:karras", options={"rho": 3.0})
    assert config.exit == Part(use="samplers:entropy", options={"threshold": 0.05})
    assert [part.use for part in config.guidance] == [
        "samplers:classifier-free",
        "samplers:score-temperature",
    ]


def test_what_is_not_said_stays():
    config = resolved(sampler="ancestral", exit="none", guidance=["none"])
    assert config.sampler.options == {"eta": 0.25}
    assert config.exit is None
    assert config.guidance == []
    assert resolved().exit.options == {"step": 3}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"exit": "entrpy"}, "--exit entrpy: exit.use: nobody provides an exit named 'entrpy'"),
        ({"exit": "entropy"}, "--exit entropy: exit.with.threshold: is missing"),
        ({"grid": "karras:rho=x"}, "--grid karras:rho=x: grid.with.rho: expected a number"),
        ({"sampler": "none"}, "--sampler none: sampler: "),
        (
            {"guidance": ["classifier-free:scale=1", "score-temprature"]},
            "--guidance classifier-free:scale=1 --guidance score-temprature: guidance.1.use: ",
        ),
        ({"exit": "entropy:"}, "--exit 'entropy:': expected a name"),
        ({"guidance": ["none", "x:=1"]}, "--guidance 'x:=1': expected option=value"),
    ],
)
def test_errors_name_the_option_that_was_typed(words, message):
    with pytest.raises((RecipeError, UsageError), match=re.escape(message)):
        resolved(**words)

"""Numbers that no run can use, and names that no file can have: refused by the check, in words."""

from pathlib import Path

import pytest

from dlmkit.errors import RecipeError
from dlmkit.plugin import MOST
from dlmkit.recipe.load import load_recipe
from dlmkit.recipe.schema import TOKENS
from dlmkit.registry.lookup import Registry


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(registry, text, *overrides):
    Path("r.yaml").write_text(f"extends: ddlm_grammar\n{text}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe("r.yaml", overrides, registry)
    return str(caught.value)


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
@pytest.mark.parametrize(
    "key",
    [
        "train.learning_rate",
        "train.weight_decay",
        "train.clip",
        "schedule.with.t_max",
        "train.betas.0",
    ],
)
def test_a_number_that_is_not_finite_is_refused(registry, key, value):
    message = refused(registry, "", f"{key}={value}")
    assert key in message
    assert "\n" not in message


def test_where_infinity_has_a_meaning_it_is_taken(registry):
    load_recipe("ddlm_grammar", ["guidance=[{use: clamped, with: {below: .inf}}]"], registry)


@pytest.mark.parametrize("betas", ["[1.5, 0.9]", "[0.9, 1.0]", "[-0.1, 0.9]", "[.nan, 0.9]"])
def test_decays_of_moments_lie_in_0_to_1(registry, betas):
    assert "train.betas." in refused(registry, "", f"train.betas={betas}")


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("length", MOST),
        ("train.batch_size", MOST),
        ("train.micro_batch_size", MOST),
        ("train.validation_rows", MOST),
        ("train.threads", 1024),
        ("sample.batch_size", MOST),
        ("sample.count", MOST),
        ("sample.steps", MOST),
        ("space.with.dim", MOST),
        ("network.with.width", MOST),
        ("network.with.blocks", 4096),
        ("network.with.heads", MOST),
        ("network.with.feed_forward", MOST),
        ("schedule.with.bins", MOST),
    ],
)
def test_a_size_that_no_machine_holds_is_refused_with_the_limit(registry, key, most):
    for value in ("1e12", "1000000000000", str(most + 1)):
        assert f"expected less than or equal to {most}" in refused(registry, "", f"{key}={value}")


def test_the_positions_of_a_batch_are_limited_together(registry):
    message = refused(registry, "", "length=1000000", "train.batch_size=100000")
    assert f"1,000,000 = 100,000,000,000 positions at once; the most is {TOKENS:,}" in message


def test_an_integer_may_be_written_with_an_exponent(registry):
    Path("r.yaml").write_text(
        "extends: ddlm_grammar\nseed: 1e5\ntrain: {steps: 2e3}\nschedule: {with: {bins: 5e1}}\n"
    )
    config = load_recipe("r.yaml", (), registry).config
    found = (config.seed, config.train.steps, config.schedule.options["bins"])
    assert repr(found) == "(100000, 2000, 50)"
    assert "expected an integer, got 1.5" in refused(registry, "seed: 1.5")


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "9" * 500, "-9223372036854775809"])
@pytest.mark.parametrize("key", ["seed", "length", "summary"])
def test_an_integer_beyond_64_bits_is_refused_in_one_short_line(registry, key, number):
    message = refused(registry, f"{key}: {number}")
    assert message.startswith("r.yaml:2:")
    assert len(message) < 200


def test_an_index_of_thousands_of_digits_is_none_of_the_items(registry):
    assert "is not one of the" in refused(registry, "", f"metric.{'9' * 5000}=x")


@pytest.mark.parametrize(
    "name", ["~nosuchuser/x.yaml", "a" * 5000 + ".yaml", "a" * 5000, "a/" * 3000 + "x.yaml", "\0/x"]
)
def test_a_name_that_no_file_can_have_is_no_recipe(registry, name):
    with pytest.raises(RecipeError, match="there is no recipe"):
        load_recipe(name, (), registry)
    if "\0" not in name:
        Path("r.yaml").write_text(f"extends: {name}\n")
        with pytest.raises(RecipeError, match=r"^r\.yaml:1:10: extends: there is no recipe"):
            load_recipe("r.yaml", (), registry)

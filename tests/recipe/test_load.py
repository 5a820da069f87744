"""What a recipe resolves to: defaults, names, parents and overrides."""

from pathlib import Path

import pytest

from dlmkit.errors import DlmkitError
from dlmkit.recipe.load import load_recipe, resolve_text
from dlmkit.recipe.shelf import folder, locate, shipped


def test_names_are_qualified_and_defaults_filled_in(write, registry):
    config = load_recipe(write(), registry=registry).config
    assert config.schedule.use == "toy:ramp"
    assert config.schedule.options == {"low": 1.0, "high": 80.0, "shape": "straight"}
    assert config.network.options["tail"] == {"low": 1.0, "high": 300.0, "shape": "straight"}
    assert (config.length, config.train.steps, config.train.decay) == (64, 100, "cosine")


def test_nested_parts_are_resolved_wherever_they_stand(changed, registry):
    mixed = (
        "use: mixed, with: {parts: [{use: never}], named: {a: {use: ranged}}, other: {use: never}}"
    )
    options = load_recipe(changed("use: never", mixed), registry=registry).config.masking.options
    ranged = {"low": 1.0, "high": 300.0, "shape": "straight"}
    assert options == {
        "parts": [{"use": "toy:never", "with": {}}],
        "named": {"a": {"use": "toy:ranged", "with": ranged}},
        "other": {"use": "toy:never", "with": {}},
    }


def test_the_resolved_text_loads_again_identically(changed, registry):
    mixed = (
        "use: mixed, with: {parts: [{use: never}], named: {a: {use: ranged, with: {high: .inf}}}}"
    )
    first = load_recipe(changed("use: never", mixed), ["exit=null", "seed=7"], registry)
    again = resolve_text(first.text(), "saved.yaml", registry=registry)
    assert again.config == first.config
    assert again.text() == first.text()
    assert again.source == Path("saved.yaml")


def test_every_shipped_recipe_is_valid_and_survives_30_steps(registry):
    for recipe in shipped(registry):
        first = load_recipe(recipe.name, registry=registry)
        assert resolve_text(first.text(), "again", registry=registry).config == first.config
        assert load_recipe(recipe.name, ["train.steps=30"], registry).config.train.steps == 30


def test_a_shipped_recipe_has_one_name_and_one_qualified_name(registry):
    path = folder() / "ddlm_grammar.yaml"
    assert locate("ddlm_grammar", registry) == path
    assert locate("dlmkit:ddlm_grammar", registry) == path
    assert locate(str(path), registry) == path


PLUGIN_RECIPE = """
from pathlib import Path
from dlmkit import hookimpl
from dlmkit.plugin import Recipe

@hookimpl
def register_recipes():
    return [Recipe(name, Path(__file__).with_name("theirs.yaml")) for name in NAMES]
"""


def test_a_plugin_ships_recipes_under_names(install, write, registry):
    site = install("acme", f"NAMES = ['theirs', 'ddlm_grammar']{PLUGIN_RECIPE}")
    (site / "theirs.yaml").write_text(Path(write()).read_text())
    reloaded = type(registry).load()
    assert load_recipe("theirs", registry=reloaded).config.seed == 3
    assert load_recipe("acme:ddlm_grammar", registry=reloaded).config.seed == 3
    with pytest.raises(DlmkitError) as caught:
        locate("ddlm_grammar", reloaded)
    assert str(caught.value) == (
        "recipe 'ddlm_grammar' is shipped by several plugins: "
        "write 'dlmkit:ddlm_grammar' or 'acme:ddlm_grammar'"
    )


def test_a_child_changes_what_it_says_and_inherits_the_rest(write, registry):
    write(name="parent.yaml")
    child = write("extends: parent.yaml\nseed: 4\nschedule: {with: {low: 2}}\ntrain: {ema: 0.5}")
    config = load_recipe(child, registry=registry).config
    assert (config.seed, config.train.steps, config.train.ema) == (4, 100, 0.5)
    assert config.schedule.options == {"low": 2.0, "high": 80.0, "shape": "straight"}


def test_another_part_drops_the_inherited_options(write, registry):
    write(name="parent.yaml")
    child = write("extends: ./parent.yaml\nschedule: {use: stair, with: {count: 1}}")
    options = load_recipe(child, registry=registry).config.schedule.options
    assert set(options) == {"count", "tail"}


def test_the_same_part_with_its_plugin_keeps_them(write, registry):
    write(name="parent.yaml")
    child = write("extends: parent.yaml\nschedule: {use: toy:ramp}")
    assert load_recipe(child, registry=registry).config.schedule.options["high"] == 80.0


def test_a_parent_is_found_beside_the_child_and_may_have_a_parent(write, registry):
    write()
    Path("deep").mkdir()
    Path("deep/parent.yaml").write_text("extends: ../r.yaml\nseed: 5\nlength: 9")
    Path("deep/child.yaml").write_text("extends: parent.yaml\nseed: 6")
    config = load_recipe("deep/child.yaml", registry=registry).config
    assert (config.seed, config.length, config.train.steps) == (6, 9, 100)


def test_a_shipped_recipe_can_be_a_parent(write, registry):
    child = write("extends: ddlm_grammar\nseed: 41")
    parent = load_recipe("ddlm_grammar", registry=registry).config
    assert load_recipe(child, registry=registry).config == parent.model_copy(update={"seed": 41})


def test_problems_of_a_parent_keep_their_place(write, registry):
    write(Path(write()).read_text().replace("{high: 80}", "{hihg: 80}"), name="parent.yaml")
    child = write("extends: parent.yaml\nseed: x")
    with pytest.raises(DlmkitError) as caught:
        load_recipe(child, registry=registry)
    assert str(caught.value).splitlines() == [
        "r.yaml:2:7: seed: expected an integer, got 'x'",
        "parent.yaml:6:10: schedule.with.hihg: unknown key, did you mean 'high'?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "extends: r.yaml",
            "r.yaml:1:10: extends: recipes extend each other in a circle: r.yaml -> r.yaml",
        ),
        (
            "extends: other.yaml",
            "other.yaml:1:10: extends: recipes extend each other in a circle: "
            "r.yaml -> other.yaml -> r.yaml",
        ),
        ("extends: no.yaml", "r.yaml:1:10: extends: there is no recipe file no.yaml"),
        (
            "extends: [a, b]",
            "r.yaml:1:10: extends: expected one recipe, a file or a shipped name",
        ),
        ("extends:", "r.yaml:1:9: extends: expected one recipe, a file or a shipped name"),
        (
            "extends: acme:x",
            "r.yaml:1:10: extends: recipe 'acme:x': no plugin named 'acme' is installed",
        ),
    ],
)
def test_bad_parents(write, registry, text, message):
    write("extends: r.yaml", name="other.yaml")
    with pytest.raises(DlmkitError) as caught:
        load_recipe(write(text), registry=registry)
    assert str(caught.value) == message
    assert caught.value.exit_code == (4 if "acme" in text else 3)


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        (["seed=5"], ["seed"], 5),
        (["seed = 5"], ["seed"], 5),
        (["seed=5", "seed=6"], ["seed"], 6),
        (["train.learning_rate=1e-4"], ["train", "learning_rate"], 1e-4),
        (["summary=no"], ["summary"], "no"),
        (["summary='5'"], ["summary"], "5"),
        (["summary=a=b"], ["summary"], "a=b"),
        (["train.betas=[0.5, 0.6]"], ["train", "betas"], [0.5, 0.6]),
        (["train.betas.1=0.7"], ["train", "betas"], [0.9, 0.7]),
        (["schedule.with.low=2"], ["schedule", "with", "high"], 80.0),
        (["schedule.use=stair", "schedule.with.count=3"], ["schedule", "with", "count"], 3),
        (["schedule.with.count=3", "schedule.use=stair"], ["schedule", "with", "count"], 3),
        (["schedule.use=toy:ramp"], ["schedule", "with", "high"], 80.0),
        (["metric.0.use=length"], ["metric", 0, "use"], "toy:length"),
        (["metric=[{use: length}]", "metric.0.with.low=2"], ["metric", 0, "with", "low"], 2.0),
        (["metric=[{use: length}]", "metric.1.use=length"], ["metric", 1, "use"], "toy:length"),
        (["exit=null"], ["exit"], None),
    ],
)
def test_overrides(changed, registry, overrides, path, value):
    reference = changed("  steps: 100", "  steps: 100\n  betas: [0.9, 0.99]")
    found = load_recipe(reference, overrides, registry).config.model_dump(
        mode="json", by_alias=True
    )
    for key in path:
        found = found[key]
    assert found == value

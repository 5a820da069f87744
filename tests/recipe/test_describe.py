"""What editors, listings and comparisons are told of recipes and options."""

import json

from dlmkit.cli.app import main
from dlmkit.documents import differences
from dlmkit.recipe.compare import line
from dlmkit.recipe.jsonschema import recipe_schema
from dlmkit.recipe.options import Option, options_of


def test_differences_name_the_deepest_key_path():
    before = {"a": 1, "b": {"c": 1, "d": [1, 2]}, "e": 1}
    after = {"a": 1.0, "b": {"c": 2, "d": [1]}, "f": True}
    assert [line(d) for d in differences(before, after)] == [
        "  a: 1 -> 1.0",
        "  b.c: 1 -> 2",
        "- b.d.1: 2",
        "- e: 1",
        "+ f: true",
    ]
    assert list(differences(before, before)) == []


def test_options_in_words(registry):
    options = {o.name: o for o in options_of(registry.find("network", "reader").component.config)}
    assert options["count"] == Option("count", "integer > 0", True, None, "")
    assert options["tail"].type == "mapping"
    assert options["tail.low"] == Option("tail.low", "number > 0", False, 1.0, "")
    assert options["tail.shape"].type == "'straight' or 'curved'"
    mixed = {o.name: o.type for o in options_of(registry.find("masking", "mixed").component.config)}
    assert mixed["parts"] == "list of masking parts"
    assert mixed["other"] == "masking part or null"


def test_no_bound_of_an_option_hides_another(registry):
    """A listing shows one of each kind, and which one depends on pydantic's version."""
    for entry in registry.components():
        for name, field in entry.component.config.model_fields.items():
            kinds = [type(part) for part in field.metadata]
            assert len(kinds) == len(set(kinds)), f"{entry.qualified}: {name}: {field.metadata}"


def test_the_schema_names_every_component(registry):
    schema = recipe_schema(registry)
    for entry in registry.components():
        names = [
            option["properties"]["use"]["enum"]
            for option in schema["$defs"][entry.component.kind]["oneOf"]
            if "use" in option["properties"]
        ]
        assert any(entry.qualified in choices for choices in names)
    assert schema["properties"]["schedule"]["$ref"] == "#/$defs/schedule"
    assert "steps" in schema["$defs"]["TrainConfig"]["properties"]


def test_every_reference_of_the_schema_leads_somewhere(registry):
    schema = recipe_schema(registry)
    found = list(_references(schema))
    assert {r.removeprefix("#/$defs/") for r in found} <= set(schema["$defs"])
    assert "#/$defs/masking" in found


def _references(value):
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _references(item)


def test_a_component_is_shown_by_its_name_alone(capsys):
    assert main(["components", "show", "warped", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["name"]) == ("grid", "warped")
    assert main(["components", "show", "warped"]) == 0
    assert capsys.readouterr().out.lower().count("no options") == 1
    assert main(["components", "show", "wrped"]) == 3
    assert "no component of this name, did you mean 'warped'?" in capsys.readouterr().err
    assert main(["components", "show", "transformer"]) == 0
    assert "integer > 0 and <= 1,048,576" in capsys.readouterr().out

"""The JSON Schema of recipes for editors: the envelope, and every installed component's options."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dlmkit.plugin import KINDS, PART_SCHEMA_KEY
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.registry.lookup import Entry, Registry

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """What a recipe may say in this environment.

    A recipe that extends another may leave out what the other gives, so keys are required only
    of one that does not.
    """
    schema = RecipeConfig.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})
    for kind in KINDS:
        definitions[kind] = _kind(registry.components(kind), definitions)
    required = {"required": schema.pop("required", [])}
    nested = {
        key: {"required": definitions[name].pop("required")}
        for key, name in _references(schema["properties"])
        if "required" in definitions[name]
    }
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "one parent: a file relative to this one, or a shipped recipe's name",
    }
    schema["if"] = {"not": {"required": ["extends"]}}
    schema["then"] = {**required, "properties": nested}
    document = {"$schema": _DIALECT, **schema, "title": "dlmkit recipe", "$defs": definitions}
    linked: dict[str, Any] = _link(document)
    return linked


def _references(properties: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = ((key, value.get("$ref", "")) for key, value in properties.items())
    return [(key, reference.rpartition("/")[2]) for key, reference in pairs if reference]


def _kind(entries: list[Entry], definitions: dict[str, Any]) -> dict[str, Any]:
    """One alternative a component, and one that adds options to those of an extended recipe."""
    names = Counter(entry.component.name for entry in entries)
    inherited = {
        "type": "object",
        "description": "options over those of the recipe that this one extends",
        "properties": {"with": {"type": "object"}},
        "additionalProperties": False,
    }
    parts = [_part(entry, names[entry.component.name] == 1, definitions) for entry in entries]
    return {"oneOf": [*parts, inherited]}


def _part(entry: Entry, unique: bool, definitions: dict[str, Any]) -> dict[str, Any]:
    component = entry.component
    title = f"{component.kind} {entry.qualified}"
    options = component.config.model_json_schema(
        by_alias=True, ref_template=f"#/$defs/{title}.{{model}}"
    )
    for name, definition in options.pop("$defs", {}).items():
        definitions[f"{title}.{name}"] = definition
    needs = options.pop("required", [])  # an extended recipe may give them
    return {
        "type": "object",
        "title": title,
        "description": component.summary + (f" (options needed: {', '.join(needs)})" * bool(needs)),
        "properties": {
            "use": {"enum": [component.name, entry.qualified] if unique else [entry.qualified]},
            "with": options,
        },
        "required": ["use"],
        "additionalProperties": False,
    }


def _link(schema: Any) -> Any:
    """``schema`` with every field that names a part pointing to the definition of its kind."""
    if isinstance(schema, list):
        return [_link(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    linked = {key: _link(value) for key, value in schema.items() if key != PART_SCHEMA_KEY}
    if PART_SCHEMA_KEY in schema:
        linked.pop("type", None)
        linked["$ref"] = f"#/$defs/{schema[PART_SCHEMA_KEY]}"
    return linked

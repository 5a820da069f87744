"""The options of a component in words, from its config alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from dlmkit.plugin import PART_SCHEMA_KEY, Config
from dlmkit.registry.complaints import part_kind, sub_config


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its key (dotted where options nest), type in words, default and meaning."""

    name: str
    type: str
    required: bool
    default: Any
    description: str


def options_of(config: type[Config], prefix: str = "") -> Iterator[Option]:
    """The options of ``config`` in its own order; those of a nested config follow it."""
    schema = config.model_json_schema(by_alias=True)
    for name, field in config.model_fields.items():
        key = field.alias or name
        words = type_words(schema["properties"][key])
        required = field.is_required()
        below = sub_config(field.annotation)
        nested = below is not None and part_kind(field.annotation, field.metadata) is None
        default = None if required or nested else _default(field)
        yield Option(f"{prefix}{key}", words, required, default, field.description or "")
        if nested and below is not None:
            yield from options_of(below, f"{prefix}{key}.")


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True, validated_data={})
    return to_jsonable_python(default, by_alias=True, fallback=repr)


def type_words(schema: Mapping[str, Any]) -> str:
    """A JSON Schema as a few words: ``integer > 0``, ``'tied' or 'untied'``, ``exit part``."""
    if PART_SCHEMA_KEY in schema:
        return f"{schema[PART_SCHEMA_KEY]} part"
    if "enum" in schema or "const" in schema:
        return " or ".join(repr(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(type_words(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return "mapping"
    if schema.get("type") == "array":
        items = schema.get("items") or {}
        several = schema.get("prefixItems")
        if several:
            return f"list of {len(several)}: {', '.join(type_words(item) for item in several)}"
        return f"list of {type_words(items)}{'s' if PART_SCHEMA_KEY in items else ''}"
    return _TYPES.get(str(schema.get("type")), "anything") + _bounds(schema)


_TYPES = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "mapping",
}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def _bounds(schema: Mapping[str, Any]) -> str:
    limits = [f"{sign} {_number(schema[key])}" for key, sign in _BOUNDS.items() if key in schema]
    return f" {' and '.join(limits)}" if limits else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"

"""Options checked against the config they are of, and what is wrong with them in words."""

from __future__ import annotations

import functools
import operator
import re
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from dlmkit import files
from dlmkit.plugin import Config, Part, PartOf
from dlmkit.registry.declarations import did_you_mean

C = TypeVar("C", bound=Config)


def part_kind(annotation: Any, metadata: Any = ()) -> str | None:
    """The kind that a field made by ``part_of(kind)`` must name, in whatever it is wrapped."""
    for item in (*metadata, *get_args(annotation)):
        kind = item.kind if isinstance(item, PartOf) else part_kind(item)
        if kind is not None:
            return kind
    return None


def sub_config(annotation: Any) -> type[Config] | None:
    """The Config class in a field's annotation, in whatever it is wrapped."""
    if isinstance(annotation, type) and issubclass(annotation, Config) and annotation is not Part:
        return annotation
    return next(filter(None, map(sub_config, get_args(annotation))), None)


def validated(model: type[C], data: Any) -> C:
    """``data`` as ``model``; 1e5 is an integer where one is meant, as JSON Schema has it.

    Raises pydantic's ValidationError, of which :func:`complaint` says each part in words.
    """
    try:
        return model.model_validate_json(to_json(data), strict=True)
    except ValidationError as error:
        whole = [
            details["loc"]
            for details in error.errors()
            if details["type"] == "int_type"
            and isinstance(details["input"], float)
            and details["input"].is_integer()
        ]
        if not whole:
            raise
    data = from_json(to_json(data))  # a copy without objects
    for *parents, last in whole:
        holder = functools.reduce(operator.getitem, parents, data)
        holder[last] = int(holder[last])
    return model.model_validate_json(to_json(data), strict=True)


def complaint(model: type[Config], details: ErrorDetails) -> str:
    """What is wrong with options of ``model``, and what could stand there."""
    loc = details["loc"]
    if details["type"] == "extra_forbidden":
        return unknown(str(loc[-1]), siblings(model, loc))
    return "is missing, and has no default" if details["type"] == "missing" else _message(details)


def complaints(model: type[Config], error: ValidationError) -> str:
    """All that is wrong, each under its dotted key."""
    return "; ".join(
        f"{'.'.join(map(str, details['loc'])) or 'options'}: {complaint(model, details)}"
        for details in error.errors(include_url=False)
    )


def siblings(model: type[Config], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that could stand where the last key of ``loc`` does."""
    current: type[Config] = model
    for key in loc[:-1]:
        for name, field in current.model_fields.items():
            if key == (field.alias or name):
                part = part_kind(field.annotation, field.metadata)
                current = Part if part else sub_config(field.annotation) or current
    return [field.alias or name for name, field in current.model_fields.items()]


def unknown(key: str, names: list[str]) -> str:
    """What to say of a ``key`` where only ``names`` may stand."""
    return f"unknown key{did_you_mean(key, names) or _listed(names)}"


def _listed(names: list[str]) -> str:
    return f"; there are {', '.join(names)}" if names else "; there are no options"


def kind_of(value: Any) -> str:
    """The YAML word for the type of a value, with the value where it is short."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else files.quoted(value)


_WORDS = {
    "a valid array": "a list",
    "a valid tuple": "a list",
    "a valid dictionary": "a mapping",
    "a valid string": "text",
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a valid boolean": "true or false",
}


def _message(details: ErrorDetails) -> str:
    """What pydantic says, with what was given, and a guess where there is a fixed choice."""
    message, given = details["msg"], details["input"]
    if details["type"] == "model_type" or details["type"] == "model_attributes_type":
        wanted = "a mapping"
        if details.get("ctx", {}).get("class_name") == Part.__name__:
            wanted = "{use: NAME, with: {OPTION: VALUE}}"
        return f"expected {wanted}, got {kind_of(given)}"
    if details["type"] in ("value_error", "assertion_error"):
        return message.partition(", ")[2]
    expected = message.replace("Input should be", "expected", 1)
    for theirs, ours in _WORDS.items():
        expected = expected.replace(theirs, ours)
    choices = re.findall(r"'([^']*)'", details.get("ctx", {}).get("expected", ""))
    guess = did_you_mean(given, choices) if isinstance(given, str) else ""
    got = "" if isinstance(given, dict | list) and message == expected else kind_of(given)
    return f"{expected[0].lower()}{expected[1:]}{got and f', got {got}'}{guess}"

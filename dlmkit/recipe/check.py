"""Two-phase validation: the closed envelope, then every part's own options, all problems kept."""

from __future__ import annotations

import copy
import functools
import operator
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails, to_json

from dlmkit.errors import DlmkitError, PluginError, describe
from dlmkit.plugin import Config, Part, PartOf
from dlmkit.recipe.problems import Mark, Path, Problem
from dlmkit.recipe.tree import Node
from dlmkit.recipe.yaml import kind_of
from dlmkit.registry.declarations import did_you_mean
from dlmkit.registry.lookup import Entry, Registry


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


class Checker:
    """Validates plain data read from ``root`` and fills in names and defaults.

    ``problems`` gathers what is wrong; ``used`` is every part met, by its path, ``offered`` what
    each provides, and ``complete`` whether all of them are known.
    """

    def __init__(self, root: Node, registry: Registry) -> None:
        self.root = root
        self.registry = registry
        self.problems: list[Problem] = []
        self.used: dict[Path, Entry] = {}
        self.offered: dict[Path, frozenset[str]] = {}
        self.complete = True

    def config(self, model: type[Config], data: Any, path: Path = ()) -> Any:
        """``data`` with defaults and qualified names, as far as it is valid."""
        try:
            checked = _validated(model, data)
            data = checked.model_dump(mode="json", by_alias=True)
        except ValidationError as error:
            for details in error.errors():
                self._explain(model, details, path)
        except Exception as error:  # a validator's own fault
            self.note(path, f"{model.__name__} cannot check this: {describe(error)}", plugin=True)
        return self._fields(model, data, path)

    def _fields(self, model: type[Config], data: Any, path: Path) -> Any:
        if not isinstance(data, Mapping):
            return data
        result = dict(data)
        for name, field in model.model_fields.items():
            key = field.alias or name
            if key not in result:
                continue
            kind, below = part_kind(field.annotation, field.metadata), sub_config(field.annotation)
            if kind is not None:
                result[key] = self._parts(kind, result[key], (*path, key))
            elif below is not None:
                result[key] = self._configs(below, result[key], (*path, key))
        return result

    def _configs(self, model: type[Config], value: Any, path: Path) -> Any:
        if isinstance(value, list):
            return [self._configs(model, item, (*path, i)) for i, item in enumerate(value)]
        return self._fields(model, value, path)

    def _parts(self, kind: str, value: Any, path: Path) -> Any:
        if isinstance(value, list):
            return [self._parts(kind, item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, dict) and isinstance(value.get("use"), str):
            return self._part(kind, value, path)
        if isinstance(value, dict) and "use" not in value:  # named parts: dict[str, part_of(kind)]
            return {key: self._parts(kind, item, (*path, key)) for key, item in value.items()}
        return value

    def _part(self, kind: str, value: dict[str, Any], path: Path) -> dict[str, Any]:
        try:
            entry = self.registry.find(kind, value["use"])
        except DlmkitError as error:
            self.note((*path, "use"), str(error), isinstance(error, PluginError))
            self.complete = False
            return value
        self.used[path] = entry
        options = self.config(entry.component.config, value.get("with", {}), (*path, "with"))
        self.offered[path] = offers(entry, options)
        return {**value, "use": entry.qualified, "with": options}

    def note(self, path: Path, what: str, plugin: bool = False) -> None:
        """Record a problem at ``path``, or at its deepest ancestor that was written down."""
        self.problems.append(Problem(self._mark(path), path, what, plugin))

    def _mark(self, path: Path) -> Mark:
        node, there = self.root.find(path)
        if path[len(there) : len(there) + 1] == ("with",):  # not written down: the part is
            node, _ = self.root.find((*there, "use"))
        return node.mark

    def _explain(self, model: type[Config], details: ErrorDetails, path: Path) -> None:
        full = (*path, *details["loc"])
        _, there = self.root.find(full)
        if details["type"] == "extra_forbidden":
            mark = self.root.key_mark(there)
            siblings = _siblings(model, details["loc"])
            siblings += ["extends"] if len(there) == 1 else []
            what = f"unknown key{did_you_mean(str(there[-1]), siblings) or _list(siblings)}"
            self.problems.append(Problem(mark, there, what))
        elif details["type"] == "missing":
            self.note(full, "is missing, and has no default")
        else:
            self.note(there if len(there) >= len(path) else path, _message(details))


def _validated(model: type[Config], data: Any) -> Config:
    """``data`` as ``model``; 1e5 is an integer where one is meant, as JSON Schema has it."""
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
    data = copy.deepcopy(data)
    for *parents, last in whole:
        holder = functools.reduce(operator.getitem, parents, data)
        holder[last] = int(holder[last])
    return model.model_validate_json(to_json(data), strict=True)


def _siblings(model: type[Config], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that could stand where the last key of ``loc`` does."""
    current: type[Config] = model
    for key in loc[:-1]:
        for name, field in current.model_fields.items():
            if key == (field.alias or name):
                part = part_kind(field.annotation, field.metadata)
                current = Part if part else sub_config(field.annotation) or current
    return [field.alias or name for name, field in current.model_fields.items()]


def _list(names: list[str]) -> str:
    return f"; there are {', '.join(names)}" if names else "; there are no options"


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


def offers(entry: Entry, options: Any) -> frozenset[str]:
    """What a part provides with these options; with invalid ones, what it always does."""
    try:
        config = entry.component.config.model_validate(options)
    except Exception:  # noted already, where the options were checked
        return entry.component.provides
    return entry.component.provides | config.capabilities()


def check_capabilities(checker: Checker) -> None:
    """Note every part that requires what no other part of the recipe provides.

    Where a part is unknown, so is what it provides, and nothing is noted.
    """
    if not checker.complete:
        return
    for path, entry in checker.used.items():
        others = [names for at, names in checker.offered.items() if at != path]
        offered = frozenset[str]().union(*others)
        for missing in sorted(entry.component.requires - offered):
            checker.note(path, _lacking(entry, missing, checker.registry))


def _lacking(entry: Entry, capability: str, registry: Registry) -> str:
    providers = [
        f"{other.component.kind} {other.qualified}"
        for other in registry.components()
        if capability in other.component.provides
    ]
    who = f"provided by {', '.join(providers)}" if providers else "nothing installed provides it"
    return (
        f"{entry.component.kind} {entry.qualified} requires {capability!r}, "
        f"which no other part of this recipe provides ({who})"
    )

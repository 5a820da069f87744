"""Two-phase validation: the closed envelope, then every part's own options, all problems kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dlmkit.errors import DlmkitError, PluginError, describe
from dlmkit.plugin import Config
from dlmkit.recipe.problems import Mark, Path, Problem
from dlmkit.recipe.tree import Node
from dlmkit.registry.complaints import (
    complaint,
    part_kind,
    siblings,
    sub_config,
    unknown,
    validated,
)
from dlmkit.registry.lookup import Entry, Registry


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
            checked = validated(model, data)
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
            names = siblings(model, details["loc"])
            names += ["extends"] if len(there) == 1 else []
            self.problems.append(Problem(mark, there, unknown(str(there[-1]), names)))
        else:
            missing = details["type"] == "missing"
            at = full if missing else there if len(there) >= len(path) else path
            self.note(at, complaint(model, details))


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

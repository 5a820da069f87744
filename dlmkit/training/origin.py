"""What a model was made with, as the folder of its run or its export remembers it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from dlmkit import files
from dlmkit.recipe.problems import Problem
from dlmkit.recipe.yaml import read_text
from dlmkit.registry.lookup import Registry
from dlmkit.training.folder import read_environment

_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_FILE = re.compile(r"[A-Za-z]\w*\.py", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.!+_-]*")


def run_of(checkpoint: Path | None) -> Path | None:
    """The folder of the run that ``checkpoint`` lies in, if it lies in one."""
    if checkpoint is None:
        return None
    parent = checkpoint.resolve().parent
    return parent.parent if parent.name == "checkpoints" else None


def environment_of(folder: Path | None) -> dict[str, Any]:
    """What the model in ``folder`` was made in: its own record, or its run's; empty if unknown."""
    for place in filter(None, (folder, run_of(folder))):
        if recorded := read_environment(place):
            return recorded
    return {}


def plugins_of(recipe: str) -> list[str]:
    """The plugins that the text of a resolved recipe names, sorted."""
    problems: list[Problem] = []
    plain = read_text(recipe, "recipe", problems).plain()
    return sorted({name.partition(":")[0] for name in _uses(plain) if ":" in name})


def _uses(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("use"), str):
            yield value["use"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _uses(item)


def advice(folder: Path, recipe: str, registry: Registry) -> str:
    """How to get the plugins that the model in ``folder`` needs and ``registry`` lacks.

    Lines to go behind an error message; nothing where no package is on record.
    """
    there = {plugin.name for plugin in registry.plugins}
    made_with = {entry["name"]: entry for entry in environment_of(folder).get("plugins", ())}
    missing = [made_with[n] for n in plugins_of(recipe) if n not in there and n in made_with]
    return "".join(
        f"\nthis model was made with plugin {files.quoted(entry['name'])} of {_how(entry)}"
        for entry in missing
    )


def package(name: Any) -> str | None:
    """``name`` if it is that of a package, so that no command that holds it means anything else."""
    return name if isinstance(name, str) and _PACKAGE.fullmatch(name) else None


def plugin_file(entry: Mapping[str, Any]) -> str | None:
    """The name of the file that a plugin on record is, without its folder; None if it is none."""
    name = PurePath(entry.get("path", "")).name
    proper = _FILE.fullmatch(name) and _SHA256.fullmatch(entry.get("sha256", ""))
    return name if proper else None


def _how(entry: Mapping[str, Any]) -> str:
    """The package or file of a plugin on record, and how to get it, if it can be one."""
    if file := plugin_file(entry):
        return f"the file {file} (sha256 {entry['sha256']}): name it by --plugin FILE"
    name, version = package(entry.get("distribution")), entry.get("version")
    if name is None or not (isinstance(version, str) and _VERSION.fullmatch(version)):
        what = entry.get("distribution") or entry.get("path")
        return (
            f"{files.quoted(what)} {files.quoted(version)}, which is no name and version of a "
            "package: ask its author"
        )
    return f"{name} {version}: pip install '{name}=={version}'"

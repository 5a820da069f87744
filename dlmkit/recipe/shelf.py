"""Where recipes are found: files, dlmkit's own by name, and those that plugins ship."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dlmkit import folders
from dlmkit.errors import PluginError, RecipeError
from dlmkit.plugin import PROJECT
from dlmkit.registry.declarations import did_you_mean
from dlmkit.registry.lookup import Registry, unusable

SUFFIXES = (".yaml", ".yml")
LONGEST = 1000
"""Characters of a reference that a message still quotes whole."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A recipe with a name. ``owner`` is a plugin's name, or ``dlmkit`` for its own."""

    owner: str
    name: str
    path: Path

    @property
    def qualified(self) -> str:
        """``owner:name``, which is never ambiguous."""
        return f"{self.owner}:{self.name}"


def folder() -> Path:
    """dlmkit's own recipes: in the package if installed from a wheel, else beside it."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped(registry: Registry) -> list[Shipped]:
    """All named recipes, dlmkit's own first, each group by name."""
    built_in = [Shipped(PROJECT, p.stem, p) for p in folder().glob("*.yaml") if p.is_file()]
    foreign = [
        Shipped(plugin.name, recipe.name, recipe.path)
        for plugin in registry.loaded
        if plugin.state == "ok"
        for recipe in plugin.recipes
    ]
    return sorted(built_in, key=lambda r: r.name) + sorted(foreign, key=lambda r: r.qualified)


def is_path(reference: str) -> bool:
    """Whether a reference is a path, not a name: it holds a slash or ends with .yaml or .yml."""
    return "/" in reference or "\\" in reference or reference.endswith(SUFFIXES)


def locate(reference: str, registry: Registry, base: Path | None = None) -> Path:
    """The file that ``reference`` means: a path (relative to ``base``), or a shipped name.

    Raises RecipeError if there is no such recipe, PluginError if its plugin cannot be used.
    """
    if not reference.strip():
        raise RecipeError("the name of a recipe is empty")
    if is_path(reference):
        return _file(reference, registry, base or Path())
    return _named(reference, registry).path


def _file(reference: str, registry: Registry, base: Path) -> Path:
    path = base / folders.expanded(reference)
    if os.path.exists(path):
        return path
    if len(reference) > LONGEST:
        raise RecipeError(
            f"there is no recipe file {reference[:20]}...: its name has {len(reference)} characters"
        )
    stem = Path(reference).stem
    names = [recipe.name for recipe in shipped(registry)]
    hint = f"; the shipped recipe is called {stem!r}" if stem in names else ""
    raise RecipeError(f"there is no recipe file {path}{hint}")


def _named(name: str, registry: Registry) -> Shipped:
    everything = shipped(registry)
    matches = [recipe for recipe in everything if name in (recipe.name, recipe.qualified)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        owners = " or ".join(repr(recipe.qualified) for recipe in matches)
        raise RecipeError(f"recipe {name!r} is shipped by several plugins: write {owners}")
    _refuse_plugin(name, registry)
    names = [recipe.name for recipe in everything]
    there = f"; shipped recipes are {', '.join(sorted(names))}" if names else ""
    raise RecipeError(
        f"there is no recipe named {name!r}{there}{did_you_mean(name, names)}{_on_disk(name)}"
    )


def _on_disk(name: str) -> str:
    if os.path.isdir(name):
        return f"; {name} is a folder, and a recipe is a file"
    return f"; to use the file, write ./{name}" if os.path.isfile(name) else ""


def _refuse_plugin(name: str, registry: Registry) -> None:
    plugin = name.rpartition(":")[0]
    if not plugin or plugin == PROJECT:
        return
    claimants = [p for p in registry.loaded if p.name == plugin]
    if not claimants:
        raise PluginError(f"recipe {name!r}: no plugin named {plugin!r} is installed")
    if all(p.state != "ok" for p in claimants):
        raise PluginError(f"recipe {name!r}: {unusable(claimants[0])}")

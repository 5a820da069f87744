"""The registry: every component of every plugin, found by kind and name, and built."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dlmkit.errors import PluginError, RecipeError, describe
from dlmkit.plugin import KINDS, Benchmark, Component, Config, Importer, Part, ShippedModel
from dlmkit.registry import single
from dlmkit.registry.complaints import complaints, validated
from dlmkit.registry.declarations import did_you_mean
from dlmkit.registry.loading import ALLOWED, Loaded, State, allowed_names, load_plugins

if TYPE_CHECKING:  # it imports torch
    from dlmkit.core.context import BuildContext


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What `dlmkit plugins list` says of a plugin. ``provides`` holds ``kind/name``.

    For a plugin that is a named file, ``distribution`` is its path and ``sha256`` that of its
    content, which is empty for installed ones.
    """

    name: str
    version: str
    distribution: str
    state: State
    reason: str
    provides: tuple[str, ...]
    sha256: str = ""

    @property
    def package(self) -> str:
        """The package and its version, or the file."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def record(self) -> dict[str, str]:
        """Where it came from, as environment.json keeps it."""
        if self.sha256:
            return {"name": self.name, "path": self.distribution, "sha256": self.sha256}
        return {"name": self.name, "distribution": self.distribution, "version": self.version}


@dataclass(frozen=True, slots=True)
class Entry:
    """A component, the plugin that owns it, and the package that ships the plugin."""

    plugin: str
    component: Component
    distribution: str
    version: str

    @property
    def qualified(self) -> str:
        """``plugin:name``, which is never ambiguous."""
        return f"{self.plugin}:{self.component.name}"


@dataclass(frozen=True)
class Registry:
    """What is installed. Immutable; loading it imports plugins' declarations and no torch."""

    loaded: tuple[Loaded, ...]

    @staticmethod
    def load(third_party: bool = True) -> Registry:
        """The registry of this environment; see :func:`dlmkit.registry.loading.load_plugins`.

        Raises PluginError if a file that is named failed: it was asked for, here and now.
        """
        loaded = tuple(load_plugins(third_party))
        for plugin in loaded:
            if plugin.from_file and plugin.state == "failed":
                raise PluginError(unusable(plugin))
        return Registry(loaded)

    @property
    def plugins(self) -> list[PluginInfo]:
        """Every plugin, sorted by name: loaded, failed or blocked, and why."""
        return [info(plugin) for plugin in self.loaded]

    @property
    def notes(self) -> list[str]:
        """:func:`notes` of its plugins."""
        return notes(self.plugins)

    def package(self, name: str) -> str:
        """The package that brought ``name``, which is ``plugin:what``."""
        owner = name.partition(":")[0]
        return next(plugin.package for plugin in self.loaded if plugin.name == owner)

    def components(self, kind: str | None = None) -> list[Entry]:
        """The components of all plugins that loaded, or those of one kind, by kind and name.

        Raises RecipeError if there is no such kind.
        """
        if kind is not None and kind not in KINDS:
            there = f"; kinds are {', '.join(KINDS)}"
            guess = did_you_mean(kind, KINDS) or there
            raise RecipeError(f"there is no kind of component {kind!r}{guess}")
        order = list(KINDS)
        entries = [
            _entry(plugin, component)
            for plugin in self.loaded
            if plugin.state == "ok"
            for component in plugin.components
            if kind in (None, component.kind)
        ]
        return sorted(entries, key=lambda e: (order.index(e.component.kind), e.qualified))

    def models(self) -> dict[str, ShippedModel]:
        """The models that plugins ship, by ``plugin:name``."""
        return {f"{plugin.name}:{m.name}": m for plugin in self._usable() for m in plugin.models}

    def importers(self) -> dict[str, Importer]:
        """The families of released models that plugins open, by ``plugin:name``."""
        return {f"{plugin.name}:{i.name}": i for plugin in self._usable() for i in plugin.importers}

    def benchmarks(self) -> dict[str, Benchmark]:
        """The bench cases of plugins, by ``plugin:name``."""
        return {
            f"{plugin.name}:{b.name}": b for plugin in self._usable() for b in plugin.benchmarks
        }

    def _usable(self) -> list[Loaded]:
        return [plugin for plugin in self.loaded if plugin.state == "ok"]

    def model(self, name: str) -> ShippedModel:
        """The shipped model that ``name`` (short, or ``plugin:name``) means.

        Raises RecipeError if there is none or several, PluginError if its plugin is not usable.
        """
        models = self.models()
        return models[self._shipped("model", models, "models", name)]

    def benchmark(self, name: str) -> str:
        """The ``plugin:name`` of the bench case that ``name`` means; raises as :meth:`model`."""
        return self._shipped("bench case", self.benchmarks(), "benchmarks", name)

    def _shipped(self, what: str, there: Mapping[str, Any], field: str, name: str) -> str:
        """Which of ``there`` is meant by ``name``; ``field`` of a plugin holds what it declares."""
        matches = [key for key in there if name in (key, key.rpartition(":")[2])]
        if len(matches) == 1:
            return matches[0]
        if matches:
            owners = " or ".join(map(repr, matches))
            raise RecipeError(f"{what} {name!r} is shipped by several plugins: write {owners}")
        owner, _, short = name.rpartition(":")
        for plugin in self.loaded:
            declares = any(item.name == short for item in getattr(plugin, field))
            if plugin.state != "ok" and (owner == plugin.name if owner else declares):
                raise PluginError(f"{what} {name!r}: {unusable(plugin)}")
        if owner and "/" not in name and owner not in {p.name for p in self.loaded}:
            raise PluginError(self._absent(owner))
        guess = did_you_mean(name, [*there, *(key.rpartition(":")[2] for key in there)])
        listed = f"shipped {what}s are {', '.join(there)}" if there else f"no {what} is shipped"
        raise RecipeError(f"there is no {what} {name!r}; {listed}{guess}")

    def _absent(self, plugin: str) -> str:
        return (
            f"no plugin named {plugin!r} is installed"
            f"{did_you_mean(plugin, (p.name for p in self.loaded))}; install the package "
            f"that provides it, or name its file by --plugin ('dlmkit plugins list' shows what "
            f"there is)"
        )

    def find(self, kind: str, name: str) -> Entry:
        """The component that ``name`` (short, or ``plugin:name``) means.

        Raises RecipeError if nobody provides the name, several do or it names a file, and
        PluginError if its plugin failed, is blocked or is not installed.
        """
        plugin, colon, short = name.rpartition(":")
        if (plugin or short).endswith(".py"):
            raise RecipeError(
                f"{name!r} names a file: a part is named by its plugin, never by a file"
            )
        matches = [e for e in self.components(kind) if e.component.name == short]
        if colon:
            return self._qualified(kind, plugin, short)
        if len(matches) > 1:
            raise RecipeError(
                f"{kind} {short!r} is provided by several plugins: write "
                + " or ".join(repr(e.qualified) for e in matches)
            )
        return matches[0] if matches else self._missing(kind, short)

    def _qualified(self, kind: str, plugin: str, short: str) -> Entry:
        claimants = [p for p in self.loaded if p.name == plugin]
        if not claimants:
            raise PluginError(self._absent(plugin))
        usable = [p for p in claimants if p.state == "ok"]
        if not usable:
            raise PluginError(unusable(claimants[0]))
        for component in usable[0].components:
            if (component.kind, component.name) == (kind, short):
                return _entry(usable[0], component)
        names = [c.name for c in usable[0].components if c.kind == kind]
        raise RecipeError(f"plugin {plugin!r} provides no {kind} {short!r}{_choices(short, names)}")

    def _missing(self, kind: str, short: str) -> Entry:
        for plugin in self.loaded:
            if any((c.kind, c.name) == (kind, short) for c in plugin.components):
                raise PluginError(f"{kind} {short!r}: {unusable(plugin)}")
        names = [e.component.name for e in self.components(kind)]
        away = [p.name for p in self.loaded if p.state != "ok"]
        note = f"; not loaded: {', '.join(away)} (see 'dlmkit plugins list')" if away else ""
        a = "an" if kind[0] in "aeiou" else "a"
        raise RecipeError(
            f"nobody provides {a} {kind} named {short!r}{_choices(short, names)}{note}"
        )

    def options(self, kind: str, part: Part) -> Config:
        """The validated options of ``part``. Raises RecipeError if they are not its config's."""
        entry = self.find(kind, part.use)
        try:
            return validated(entry.component.config, part.options)
        except ValidationError as error:
            problems = complaints(entry.component.config, error)
            raise RecipeError(f"{kind} {entry.qualified}: {problems}") from error

    def build(self, kind: str, part: Part, context: BuildContext) -> Any:
        """The object that ``part`` means, built with ``context``; nested parts build through it."""
        entry = self.find(kind, part.use)
        config = self.options(kind, part)
        target = import_target(entry.component.target, f"{kind} {entry.qualified}")
        bound = replace(context, build=lambda k, p: self.build(k, p, context))
        try:
            built = target(config, bound)
        except Exception as error:
            error.add_note(f"while building {kind} {entry.qualified}")
            raise
        return _checked(kind, entry, built)


def info(plugin: Loaded) -> PluginInfo:
    """What is said of a plugin."""
    p = plugin
    provides = _provides(p)
    return PluginInfo(p.name, p.version, p.distribution, p.state, p.reason, provides, p.sha256)


def load_file(path: str | Path) -> PluginInfo:
    """:func:`dlmkit.load_plugin`."""
    before = os.environ.get(single.FILES)
    file = single.name(path)
    try:
        return next(p for p in Registry.load().plugins if p.distribution == str(file.path))
    except PluginError:
        single.restore(before)
        raise


def notes(plugins: Iterable[PluginInfo]) -> list[str]:
    """What is odd about the environment's choice of ``plugins``, one line each."""
    absent = sorted((allowed_names() or set()) - {plugin.name for plugin in plugins})
    return [f"{ALLOWED} lists {name!r}, which no installed package provides" for name in absent]


def _entry(plugin: Loaded, component: Component) -> Entry:
    return Entry(plugin.name, component, plugin.distribution, plugin.version)


def _provides(plugin: Loaded) -> tuple[str, ...]:
    if plugin.state != "ok":
        return ()
    components = sorted(f"{c.kind}/{c.name}" for c in plugin.components)
    others = [
        *(f"recipe/{recipe.name}" for recipe in plugin.recipes),
        *(f"model/{model.name}" for model in plugin.models),
        *(f"importer/{importer.name}" for importer in plugin.importers),
        *(f"command/{command.name}" for command in plugin.commands),
        *(f"benchmark/{case.name}" for case in plugin.benchmarks),
    ]
    return (*components, *sorted(others))


def unusable(plugin: Loaded) -> str:
    """Why a plugin cannot be used, for an error message."""
    state = "is blocked" if plugin.state == "blocked" else "failed to load"
    return f"plugin {plugin.name!r} ({plugin.package}) {state}: {plugin.reason}"


def _choices(name: str, names: Iterable[str]) -> str:
    names = sorted(set(names))
    there = f"; there are {', '.join(names)}" if names else ""
    return did_you_mean(name, names) or there


def _checked(kind: str, entry: Entry, built: Any) -> Any:
    from dlmkit.core.kinds import INTERFACES  # it imports torch

    interface = INTERFACES[kind]
    if not isinstance(built, interface):
        raise PluginError(
            f"{kind} {entry.qualified}: {entry.component.target} built a "
            f"{type(built).__name__}, which is not a {interface.__module__}.{interface.__name__}"
        )
    return built


def import_target(target: str, who: str) -> Callable[..., Any]:
    """What ``"module:callable"`` means. Raises PluginError, which names ``who``, if it fails."""
    module, _, attributes = target.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            value = getattr(value, attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(f"{who}: cannot import {target}: {describe(error)}") from error
    if not callable(value):
        raise PluginError(f"{who}: {target} is not callable")
    function: Callable[..., Any] = value
    return function

"""Finding and loading plugins. A broken one is reported and never stops the others.

The loop over entry points is our own: pluggy's loader lets one failing import abort the program,
drops the second of two packages with one entry-point name, and ignores a misspelt hook.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from types import ModuleType
from typing import Any, Literal, NoReturn

import pluggy

from dlmkit.errors import PluginDeclarationError, PluginError, describe
from dlmkit.plugin import (
    API,
    PROJECT,
    Benchmark,
    Command,
    Component,
    Hooks,
    Importer,
    Recipe,
    ShippedModel,
)
from dlmkit.registry import single
from dlmkit.registry.declarations import DECLARED, check, did_you_mean, duplicates
from dlmkit.shown import say
from dlmkit.version import __version__

ALLOWED = "DLMKIT_PLUGINS"
"""Environment variable: names of the third-party plugins that may load, comma-separated."""

CHANGES = "CONTRIBUTING.md of dlmkit, section 'Versions of the interfaces',"
"""Where an author of a plugin for an older version reads what to change."""

PATIENCE = 10.0
"""Seconds of an import after which its plugin is named."""

_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_HOOKS = sorted(name for name in vars(Hooks) if not name.startswith("_"))

State = Literal["ok", "failed", "blocked"]


@dataclass(frozen=True)
class Loaded:
    """One entry point or named file, and what came of it; if it failed, with what it did declare.

    Of a file, ``distribution`` is the path, and ``sha256`` that of its content; else it is empty.
    """

    name: str
    distribution: str
    version: str
    target: str
    state: State = "ok"
    reason: str = ""
    components: tuple[Component, ...] = ()
    recipes: tuple[Recipe, ...] = ()
    models: tuple[ShippedModel, ...] = ()
    importers: tuple[Importer, ...] = ()
    commands: tuple[Command, ...] = ()
    benchmarks: tuple[Benchmark, ...] = ()
    sha256: str = ""

    @property
    def built_in(self) -> bool:
        """Whether the plugin belongs to dlmkit's own distribution."""
        return self.distribution == PROJECT

    @property
    def from_file(self) -> bool:
        """Whether it is a file that is named, and not installed."""
        return bool(self.sha256)

    @property
    def package(self) -> str:
        """The distribution and its version, or the file, as messages name it."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def around(self) -> str:
        """What to do where it does harm."""
        if self.from_file:
            return f"to leave it out: do not name it, by --plugin or in {single.FILES}"
        return "to leave third-party plugins out: dlmkit --no-plugins ..."

    def failed(self, reason: str) -> Loaded:
        """The same plugin, failed."""
        return replace(self, state="failed", reason=reason)


def load_plugins(
    third_party: bool = True, load: Callable[[Loaded], Loaded] | None = None
) -> list[Loaded]:
    """Every installed plugin and every file that is named, sorted by name and package. Nothing that
    a plugin does raises here.

    ``third_party=False`` blocks all but dlmkit's own, which always load; the environment variable
    ``DLMKIT_PLUGINS`` blocks installed ones, since a file loads only where it is named.
    ``load`` says what comes of those of others (:func:`dlmkit.registry.listing.plugins`),
    :func:`load_plugin` by default. Raises PluginError if dlmkit's own are not there, and
    UsageError if there is no file where one is named.
    """
    files = (Loaded(f.name, str(f.path), "", f.module, sha256=f.sha256) for f in single.named())
    plugins = sorted((*_discover(), *files), key=lambda plugin: (plugin.name, plugin.distribution))
    if not any(plugin.built_in for plugin in plugins):
        raise PluginError(
            "the installation of dlmkit is damaged: its package metadata, by which its own parts "
            "are found, is missing; install it again (pip install --force-reinstall dlmkit)"
        )
    others = load or load_plugin
    blocked = [_block(plugin, third_party) for plugin in plugins]
    settled = [_settle(plugin, blocked) for plugin in blocked]
    return [
        plugin
        if plugin.state != "ok"
        else load_plugin(plugin)
        if plugin.built_in
        else others(plugin)
        for plugin in settled
    ]


def allowed_names() -> set[str] | None:
    """The third-party plugins that ``DLMKIT_PLUGINS`` allows; None if it is not set."""
    value = os.environ.get(ALLOWED)
    if value is None:
        return None
    return {name.strip() for name in value.split(",") if name.strip()}


def _discover() -> Iterator[Loaded]:
    seen: set[str] = set()
    for distribution in metadata.distributions():
        text = distribution.read_text("entry_points.txt")
        if text is None or PROJECT not in text:
            continue
        name = _field(distribution, "Name") or "(a package without a name)"
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key not in seen:  # the first on the path is the one that imports
            seen.add(key)
            yield from _entries(distribution, key if key == PROJECT else name)


def _field(distribution: metadata.Distribution, field: str) -> str:
    try:
        return distribution.metadata[field] or ""
    except Exception:  # metadata that is missing or broken, in as many ways as Python versions
        return ""


def _entries(distribution: metadata.Distribution, name: str) -> Iterator[Loaded]:
    version = _field(distribution, "Version")
    try:
        points = distribution.entry_points.select(group=PROJECT)
    except Exception as error:
        yield Loaded(name, name, version, "").failed(f"its entry_points.txt is malformed: {error}")
        return
    for point in points:
        yield Loaded(point.name, name, version, point.value)


def _block(plugin: Loaded, third_party: bool) -> Loaded:
    allowed = allowed_names()
    if plugin.built_in or plugin.state != "ok":
        return plugin
    if not third_party:
        return replace(plugin, state="blocked", reason="third-party plugins are left out")
    if plugin.from_file:
        return plugin
    if allowed == set():
        reason = f"third-party plugins are left out (--no-plugins, or an empty {ALLOWED})"
        return replace(plugin, state="blocked", reason=reason)
    if allowed is not None and plugin.name not in allowed:
        return replace(plugin, state="blocked", reason=f"{ALLOWED} does not list it")
    return plugin


def _settle(plugin: Loaded, plugins: Sequence[Loaded]) -> Loaded:
    """Refuse a bad name, or one that two packages claim; dlmkit's own plugins keep theirs, and
    installed ones theirs before files."""
    claimants = [p for p in plugins if p.name == plugin.name and p.state == "ok"]
    rivals = [p for p in claimants if p is not plugin and not p.from_file]
    if plugin.state != "ok" or plugin.built_in:
        return plugin
    if plugin.name == PROJECT:
        return plugin.failed(f"the plugin name {PROJECT!r} is reserved")
    if not _NAME.fullmatch(plugin.name):
        return plugin.failed("a plugin's name is letters, digits, dots, hyphens and underscores")
    if plugin.from_file and rivals:
        return plugin.failed(
            f"{rivals[0].package} provides a plugin named {plugin.name!r} already: rename the file"
        )
    if any(rival.built_in for rival in rivals):
        return plugin.failed(
            f"the name {plugin.name!r} belongs to a plugin of dlmkit itself: "
            f"{plugin.package} must choose another, or be uninstalled"
        )
    if rivals:
        return plugin.failed(_clash(plugin.name, sorted({p.package for p in (plugin, *rivals)})))
    return plugin


def _clash(name: str, packages: Sequence[str]) -> str:
    if len(packages) == 1:
        return f"{packages[0]} provides a plugin named {name!r} twice"
    all_of_them = "both" if len(packages) == 2 else "all"
    listed = " and ".join(packages)
    return f"{listed} {all_of_them} provide a plugin named {name!r}: keep one of them installed"


def load_plugin(plugin: Loaded) -> Loaded:
    """``plugin`` with what it declares, or failed."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # results alone go to stdout
            if plugin.built_in:
                module = _import(plugin.target)
                return _built_in(plugin, module, *(vars(module).get(hook) for hook in _HOOKS))
            with _contained(plugin):
                _check_api(plugin)
                return _collect(plugin, _register(_import(plugin.target)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return plugin.failed(describe(error))


@functools.cache
def _built_in(plugin: Loaded, module: ModuleType, *hooks: Any) -> Loaded:
    """A plugin of dlmkit's own with what its module declares by ``hooks``: once a process, since
    nothing else enters, and every command asks for all of them."""
    return _collect(plugin, _register(module))


@contextlib.contextmanager
def _contained(plugin: Loaded) -> Iterator[None]:
    """Around what a third party runs when it is imported: it may not end the process, nor keep it
    from ending by a thread, and it is named if it takes long."""
    leave, start, left = os._exit, threading.Thread.start, list[threading.Thread]()

    def refuse(code: int) -> NoReturn:
        raise PluginDeclarationError(f"it ends the process when it is imported (os._exit({code}))")

    def begin(thread: threading.Thread) -> None:
        if not thread.daemon:
            left.append(thread)
            thread.daemon = True  # else the interpreter waits for it at its end
        start(thread)

    watch = threading.Timer(PATIENCE, say, (f"{_still(plugin)}; {plugin.around}",))
    watch.daemon = True
    watch.start()
    os._exit, threading.Thread.start = refuse, begin  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        os._exit, threading.Thread.start = leave, start  # type: ignore[method-assign]
        watch.cancel()
    for thread in left:
        thread.join(1.0)
    if running := [thread.name for thread in left if thread.is_alive()]:
        # or the next look would find it imported, and nothing wrong with it
        sys.modules.pop(metadata.EntryPoint("", plugin.target, PROJECT).module, None)
        raise PluginDeclarationError(f"its import left a thread running ({running[0]})")


def _still(plugin: Loaded) -> str:
    return f"plugin {plugin.name!r} ({plugin.package}) is still being imported"


def _check_api(plugin: Loaded) -> None:
    """Refuse a plugin for another version of the interfaces before it runs into them."""
    wanted = declared_api(plugin.target)
    if wanted == API:
        return
    newer = "" if plugin.from_file else f"a version of {plugin.distribution} for {API}, or "
    remedy = f"install {newer}a dlmkit that offers {wanted}"
    if wanted < API:
        remedy += f", or change it: {CHANGES} has a table of what is different"
    raise PluginDeclarationError(
        f"it is written for plugin API {wanted}, and dlmkit {__version__} offers {API}: {remedy}"
    )


def declared_api(target: str) -> int:
    """The whole number that a plugin's module gives ``api``, read without running it; else 1."""
    module = metadata.EntryPoint("", target, PROJECT).module
    spec = importlib.util.find_spec(module)
    loader: Any = spec and spec.loader
    try:
        tree = ast.parse(loader.get_source(module) or "")
    except (AttributeError, ImportError, SyntaxError, ValueError):
        return API  # no source to read: the import says what is wrong, if anything is
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="api")], value=ast.Constant(value=int(version))):
                return version
    return 1


def _import(target: str) -> ModuleType:
    point = metadata.EntryPoint("", target, PROJECT)
    module = point.load()
    if not isinstance(module, ModuleType):
        raise PluginDeclarationError(f"the entry point must name a module, and {target!r} does not")
    return module


def _register(module: ModuleType) -> pluggy.PluginManager:
    """A manager of its own, so that nothing of a plugin that fails halfway is left behind."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    manager.register(module)
    callers = manager.get_hookcallers(module) or []
    for caller in callers:
        optional = all(hook.optionalhook for hook in caller.get_hookimpls())
        if not caller.has_spec() and not optional:
            raise PluginDeclarationError(
                f"unknown hook {caller.name!r}"
                f"{did_you_mean(caller.name, _HOOKS) or '; hooks are ' + ', '.join(_HOOKS)}"
            )
    plain = sorted({*_HOOKS} & {*vars(module)} - {caller.name for caller in callers})
    if plain:
        raise PluginDeclarationError(f"{plain[0]} is not decorated with dlmkit.hookimpl")
    if not callers:
        raise PluginDeclarationError(
            f"{_called(module)} implements no hook: decorate its functions with dlmkit.hookimpl"
        )
    return manager


def _called(module: ModuleType) -> str:
    """A module's name as its author knows it."""
    return next(
        (f.path.name for f in single.named() if f.module == module.__name__), module.__name__
    )


def _results(manager: pluggy.PluginManager, hook: str) -> list[Any]:
    """What a hook's functions returned, joined. pluggy drops None, so it is looked for here."""
    caller = getattr(manager.hook, hook)
    returned = caller()
    if len(returned) < len(caller.get_hookimpls()):
        raise PluginDeclarationError(f"{hook}() returned None, not a list")
    for value in returned:
        if not isinstance(value, list | tuple):
            raise PluginDeclarationError(f"{hook}() returned a {type(value).__name__}, not a list")
    return [item for value in returned for item in value]


def _collect(plugin: Loaded, manager: pluggy.PluginManager) -> Loaded:
    """The plugin with its declarations; failed if one is bad, the good ones kept for messages."""
    problems: list[str] = []
    fields: dict[str, Any] = {}
    for hook, declared in DECLARED.items():
        good = []
        for item in _results(manager, hook):
            try:
                check(hook, item, strangers=not plugin.built_in)
                good.append(_inside(plugin, item))
            except ValueError as error:
                problems.append(str(error))
        word = declared.field.removesuffix("s")
        problems += duplicates(f"{getattr(item, 'kind', word)} {item.name!r}" for item in good)
        fields[declared.field] = tuple(good)
    if plugin.from_file and not problems and not any(fields.values()):
        problems.append("it declares no component, recipe, model, importer, command or benchmark")
    loaded = replace(plugin, **fields)
    return loaded.failed("; ".join(problems)) if problems else loaded


def _inside(plugin: Loaded, item: Any) -> Any:
    """A declaration of a file, whose target names the file itself as ``mine:Part`` does in
    ``mine.py``, with the module that it is; any other as it is."""
    module, colon, attribute = getattr(item, "target", "").partition(":")
    if plugin.from_file and colon and module == plugin.name:
        return replace(item, target=f"{plugin.target}:{attribute}")
    return item

"""What a plugin's declarations must look like; everything wrong with one is a ValueError."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmkit.plugin import (
    KINDS,
    Benchmark,
    Command,
    Component,
    Config,
    HubModel,
    Importer,
    Recipe,
    ShippedModel,
)

_COMPONENT_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_RECIPE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``", did you mean 'x' or 'y'?"`` if something in ``names`` is close, else nothing."""
    matches = difflib.get_close_matches(name, sorted(set(names)), n=3, cutoff=0.7)
    return f", did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def check(hook: str, item: Any, strangers: bool = True) -> None:
    """Raise ValueError unless ``item`` is a proper declaration of what ``hook`` returns.

    The options of ``strangers`` must be describable too (the built-ins' are, as tests show), and
    their commands stand under their plugin's name.
    """
    declared = DECLARED[hook]
    if not isinstance(item, declared.kind):
        raise ValueError(f"{hook}() returned a {type(item).__name__}: {item!r}")
    declared.check(item, strangers)


def _component(component: Component, strangers: bool) -> None:
    if component.kind not in KINDS:
        raise ValueError(
            f"component {component.name!r} is of unknown kind {component.kind!r}"
            f"{did_you_mean(str(component.kind), KINDS) or '; kinds are ' + ', '.join(KINDS)}"
        )
    where = f"{component.kind} {component.name!r}"
    if not _matches(_COMPONENT_NAME, component.name):
        raise ValueError(f"{where}: a name is lower-case letters, digits, dots and hyphens")
    _check_summary(where, component.summary)
    _check_config(where, component.config)
    if not _matches(_TARGET, component.target):
        raise ValueError(f"{where}: target {component.target!r} is not 'module:callable'")
    for field in ("provides", "requires"):
        _check_capabilities(where, field, getattr(component, field))
    for field in ("example", "expected_failures"):
        _check_mapping(where, field, getattr(component, field))
    if strangers:
        _check_describable(where, component.config)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _check_config(where: str, config: Any) -> None:
    if not (isinstance(config, type) and issubclass(config, Config)):
        raise ValueError(f"{where}: config must be a subclass of dlmkit.Config, not {config!r}")
    if config.model_config.get("extra") != "forbid" or not config.model_config.get("frozen"):
        raise ValueError(f"{where}: {config.__name__} must stay frozen and refuse unknown options")


def _check_describable(where: str, config: type[Config]) -> None:
    try:
        config.model_json_schema()
    except Exception as error:
        what = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{where}: the options of {config.__name__}: {what}") from error


def _check_capabilities(where: str, field: str, value: Any) -> None:
    if not (isinstance(value, frozenset) and all(isinstance(item, str) for item in value)):
        raise ValueError(f"{where}: {field} must be a frozenset of names, not {value!r}")


def _check_mapping(where: str, field: str, value: Any) -> None:
    if not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        raise ValueError(f"{where}: {field} must be a mapping from names, not {value!r}")


def _recipe(recipe: Recipe, strangers: bool) -> None:
    if not _matches(_RECIPE_NAME, recipe.name):
        raise ValueError(f"recipe {recipe.name!r}: a name is lower-case letters, digits, . _ and -")
    if not (isinstance(recipe.path, Path) and recipe.path.is_file()):
        raise ValueError(f"recipe {recipe.name!r}: there is no file {recipe.path}")


def _model(model: ShippedModel, strangers: bool) -> None:
    if not _matches(_RECIPE_NAME, model.name):
        raise ValueError(f"model {model.name!r}: a name is lower-case letters, digits, . _ and -")
    if not (isinstance(model.path, Path) and model.path.is_dir()):
        raise ValueError(f"model {model.name!r}: there is no folder {model.path}")
    _check_summary(f"model {model.name!r}", model.summary)


def _importer(importer: Importer, strangers: bool) -> None:
    _check_callable("importer", importer)
    if not callable(importer.recognises):
        raise ValueError(f"importer {importer.name!r}: recognises must be a function of a config")
    if not all(isinstance(model, HubModel) for model in importer.models):
        raise ValueError(f"importer {importer.name!r}: models must be HubModel values")


def _command(command: Command, strangers: bool) -> None:
    _check_callable("command", command)
    if command.top and strangers:
        raise ValueError(
            f"command {command.name!r}: top=True is for dlmkit's own plugins; leave it out, and "
            f"the command is run as 'dlmkit PLUGIN {command.name}'"
        )


def _benchmark(benchmark: Benchmark, strangers: bool) -> None:
    _check_callable("benchmark", benchmark)


def _check_callable(what: str, declared: Command | Benchmark | Importer) -> None:
    where = f"{what} {declared.name!r}"
    if not _matches(_COMPONENT_NAME, declared.name):
        raise ValueError(f"{where}: a name is lower-case letters, digits, dots and hyphens")
    _check_summary(where, declared.summary)
    if not _matches(_TARGET, declared.target):
        raise ValueError(f"{where}: target {declared.target!r} is not 'module:callable'")


def _check_summary(where: str, summary: Any) -> None:
    if not (isinstance(summary, str) and summary.strip()):
        raise ValueError(f"{where}: the summary must be a line of text")


@dataclass(frozen=True)
class Declared:
    """What a hook returns: the ``field`` of a loaded plugin that holds it, its type, its check."""

    field: str
    kind: type
    check: Callable[[Any, bool], None]


DECLARED: Mapping[str, Declared] = {
    "register_components": Declared("components", Component, _component),
    "register_recipes": Declared("recipes", Recipe, _recipe),
    "register_models": Declared("models", ShippedModel, _model),
    "register_importers": Declared("importers", Importer, _importer),
    "register_commands": Declared("commands", Command, _command),
    "register_benchmarks": Declared("benchmarks", Benchmark, _benchmark),
}


def duplicates(declared: Iterable[str]) -> list[str]:
    """A message for every name that one plugin declares twice."""
    counts = Counter(declared)
    return [f"{name} is declared twice" for name, count in counts.items() if count > 1]

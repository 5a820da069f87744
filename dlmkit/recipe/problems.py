"""Where something is wrong in a recipe, and what: gathered, sorted and reported together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dlmkit.errors import DlmkitError, PluginError, RecipeError

Path = tuple[str | int, ...]


class Mark(NamedTuple):
    """A position: ``order`` sorts files (0 the recipe, then its parents, then overrides)."""

    order: int
    origin: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}:{self.column}" if self.line else self.origin


def dotted(path: Path) -> str:
    """``metric.0.with.order``, as ``--set`` and messages write it."""
    return ".".join(map(str, path))


@dataclass(frozen=True)
class Problem:
    """One thing wrong. ``plugin`` marks a known name whose plugin cannot be used."""

    mark: Mark
    path: Path
    what: str
    plugin: bool = False

    def __str__(self) -> str:
        key = dotted(self.path)
        if not key or str(self.mark) == f"--set {key}":  # an override names its key itself
            return f"{self.mark}: {self.what}"
        return f"{self.mark}: {key}: {self.what}"


class _Several:
    problems: tuple[Problem, ...]


class InvalidRecipe(RecipeError, _Several):
    """A recipe with problems, all of them in the message, one per line."""


class UnusableRecipe(PluginError, _Several):
    """A valid recipe whose parts' plugins failed, are blocked or are absent."""


def report(problems: Sequence[Problem]) -> DlmkitError:
    """The error that tells all ``problems``, sorted by position."""
    ordered = sorted(dict.fromkeys(problems), key=lambda p: (p.mark, str(p.path)))
    only_plugins = all(problem.plugin for problem in ordered)
    error = (UnusableRecipe if only_plugins else InvalidRecipe)("\n".join(map(str, ordered)))
    error.problems = tuple(ordered)
    return error

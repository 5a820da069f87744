"""From a reference to a resolved recipe: read, extend, override, check. No torch, no data."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmkit.errors import PluginError, RecipeError, UsageError
from dlmkit.folders import MANIFEST, RECIPE
from dlmkit.recipe.check import Checker, check_capabilities
from dlmkit.recipe.problems import Mark, Problem, report
from dlmkit.recipe.schema import RecipeConfig
from dlmkit.recipe.shelf import locate
from dlmkit.recipe.short import Short, typed
from dlmkit.recipe.tree import Merger, Node, settled
from dlmkit.recipe.write import dump
from dlmkit.recipe.yaml import MAX_DEPTH, grown, parse, read_file, read_text
from dlmkit.registry.lookup import Registry


@dataclass(frozen=True)
class Resolved:
    """A checked recipe: qualified names, every option filled in, and where it came from."""

    config: RecipeConfig
    source: Path

    def text(self) -> str:
        """The recipe as YAML, which loads again identically."""
        return dump(self.config.model_dump(mode="json", by_alias=True))


def load_recipe(
    reference: str, overrides: Sequence[str] = (), registry: Registry | None = None
) -> Resolved:
    """The recipe that ``reference`` (a file or a shipped name) means, with ``--set`` overrides.

    Raises RecipeError with every problem at once, or PluginError if all that is wrong is that
    plugins it names cannot be used.
    """
    registry = registry or Registry.load()
    path = locate(reference, registry)
    problems: list[Problem] = []
    return _resolve(read_file(path, problems), path, overrides, registry, problems)


def resolve_text(
    text: str, origin: str | Path, overrides: Sequence[str] = (), registry: Registry | None = None
) -> Resolved:
    """Like :func:`load_recipe` for the text of a recipe; ``origin`` names it in messages."""
    problems: list[Problem] = []
    node = read_text(text, str(origin), problems)
    return _resolve(node, Path(origin), overrides, registry or Registry.load(), problems)


def resolve_values(
    values: Mapping[str, Any],
    origin: str,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
) -> Resolved:
    """Like :func:`load_recipe` for a recipe that Python code gives; ``origin`` names it."""
    problems: list[Problem] = []
    marks = (Mark(0, origin, 0, place) for place in itertools.count())  # no lines, but an order
    node = grown(values, marks, problems)
    return _resolve(node, Path(origin), overrides, registry or Registry.load(), problems)


def _resolve(
    root: Node, path: Path, overrides: Sequence[str], registry: Registry, problems: list[Problem]
) -> Resolved:
    merger = Merger(problems)
    tree = _extend(root, path, registry, merger)
    tree = settled(_override(tree, overrides, merger))
    checker = Checker(tree, registry)
    data = checker.config(RecipeConfig, tree.plain())
    check_capabilities(checker)
    refused = {problem.mark for problem in problems}  # what follows from it is not news
    problems += [problem for problem in checker.problems if problem.mark not in refused]
    if problems:
        raise report(problems)
    return Resolved(RecipeConfig.model_validate(data), path)


def _extend(root: Node, path: Path, registry: Registry, merger: Merger) -> Node:
    """``root`` over all of its ancestors; a parent's problems keep the parent's positions."""
    chain, files = [root], [path]
    for order in itertools.count(1):
        reference = chain[-1].value.get("extends")
        if reference is None:
            break
        parent = _parent(reference, files, registry)
        files.append(parent)
        chain.append(read_file(parent, merger.problems, order))
    tree = _without_extends(chain.pop())
    while chain:
        tree = merger.merge(tree, _without_extends(chain.pop()))
    return tree


def _parent(reference: Node, files: Sequence[Path], registry: Registry) -> Path:
    def refuse(what: str, plugin: bool = False) -> Exception:
        return report([Problem(reference.mark, ("extends",), what, plugin)])

    if (files[-1].parent / MANIFEST).is_file() and files[-1].name == RECIPE:
        raise refuse("the recipe of a model is whole, and extends no other: the folder is forged")
    if not isinstance(reference.value, str):
        raise refuse("expected one recipe, a file or a shipped name")
    try:
        parent = locate(reference.value, registry, files[-1].parent)
    except (RecipeError, PluginError) as error:
        raise refuse(str(error), isinstance(error, PluginError)) from error
    if parent.resolve() in [file.resolve() for file in files]:
        circle = " -> ".join(file.name for file in (*files, parent))
        raise refuse(f"recipes extend each other in a circle: {circle}")
    return parent


def _without_extends(node: Node) -> Node:
    kept = {key: value for key, value in node.value.items() if key != "extends"}
    return Node(kept, node.mark, node.keys)


def _override(tree: Node, overrides: Sequence[str], merger: Merger) -> Node:
    """``tree`` with all overrides: joined first, so that their order among each other is free."""
    joined: Node | None = None
    for override in overrides:
        node = _set(override, merger.problems)
        joined = node if joined is None else merger.merge(joined, node)
    return tree if joined is None else merger.merge(tree, joined)


_ORDER = 1_000_000  # overrides are reported after every file


def _set(override: str, problems: list[Problem]) -> Node:
    """The tree that ``key.path=value`` means."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"{typed(override)}: expected key.path=value")
    mark = Mark(_ORDER, override.typed if isinstance(override, Short) else f"--set {path.strip()}")
    if len(keys) > MAX_DEPTH:
        raise UsageError(f"{mark}: more than {MAX_DEPTH} levels deep")
    node = parse(text, lambda line, column: mark, problems) or Node(None, mark)
    for key in reversed(keys):
        node = Node({key: node}, mark, {key: mark}, override=True)
    return node

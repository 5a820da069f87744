"""A recipe as a tree that remembers where every key and value stood."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dlmkit.recipe.problems import Mark, Path, Problem


@dataclass(frozen=True)
class Node:
    """A value with its position: a scalar, a list of nodes, or a dict of nodes.

    ``keys`` holds the positions of a dict's keys. ``override`` marks a dict made by ``--set``,
    whose numeric keys stand for items of a list.
    """

    value: Any
    mark: Mark
    keys: dict[str, Mark] = field(default_factory=dict)
    override: bool = False

    def plain(self) -> Any:
        """The value without positions."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, key: str | int) -> Node | None:
        """The value under ``key``, if there is one."""
        if isinstance(self.value, dict) and isinstance(key, str):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            node: Node = self.value[key]
            return node
        return None

    def find(self, path: Path) -> tuple[Node, Path]:
        """The node at ``path``, or its deepest ancestor that exists, and that node's path."""
        node, depth = self, 0
        for key in path:
            below = node.child(key)
            if below is None:
                break
            node, depth = below, depth + 1
        return node, path[:depth]

    def key_mark(self, path: Path) -> Mark:
        """The position of the last key of ``path``: where an unknown key is reported."""
        parent, _ = self.find(path[:-1])
        key = path[-1] if path else ""
        return parent.keys.get(str(key), self.find(path)[0].mark)


def _another_part(before: dict[str, Node], after: dict[str, Node]) -> bool:
    """Whether ``use`` changes. A name with its plugin and the same one without are one part."""
    if "use" not in before or "use" not in after:
        return False
    a, b = str(before["use"].plain()), str(after["use"].plain())
    if (":" in a) != (":" in b):
        a, b = a.rpartition(":")[2], b.rpartition(":")[2]
    return a != b


class Merger:
    """Lays one tree over another: dicts merge deeply, everything else is replaced.

    Another ``use`` drops the inherited ``with``, which belonged to another component.
    ``problems`` gathers what cannot be merged.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems

    def merge(self, parent: Node, child: Node, path: Path = ()) -> Node:
        """``child`` over ``parent``."""
        if isinstance(parent.value, list) and child.override:
            return self._items(parent, child, path)
        if not (isinstance(parent.value, dict) and isinstance(child.value, dict)):
            return child
        merged = dict(parent.value)
        if _another_part(merged, child.value):
            merged.pop("with", None)
        for key, node in child.value.items():
            merged[key] = self.merge(merged[key], node, (*path, key)) if key in merged else node
        keys = {key: child.keys.get(key) or parent.keys[key] for key in merged}
        mark = parent.mark if child.override else child.mark
        return Node(merged, mark, keys, parent.override and child.override)

    def _items(self, parent: Node, child: Node, path: Path) -> Node:
        items = list(parent.value)
        for key, node in sorted(child.value.items(), key=lambda item: (len(item[0]), item[0])):
            if not (key.isdecimal() and len(key) < 10 and int(key) <= len(items)):
                what = f"{key!r} is not one of the {len(items)} items, which count from 0"
                self.problems.append(Problem(node.mark, path, what))
            elif int(key) == len(items):
                items.append(node)
            else:
                items[int(key)] = self.merge(items[int(key)], node, (*path, int(key)))
        return Node(items, parent.mark)


def settled(node: Node) -> Node:
    """``node`` with dicts made by ``--set metric.0...`` turned into the lists they stand for."""
    if isinstance(node.value, list):
        return Node([settled(item) for item in node.value], node.mark)
    if not isinstance(node.value, dict):
        return node
    children = {key: settled(child) for key, child in node.value.items()}
    if node.override and sorted(children) == [str(i) for i in range(len(children))]:
        return Node(list(children.values()), node.mark)
    return Node(children, node.mark, node.keys)

"""Strict YAML 1.2 (core schema) with positions, and the writer that reads back identically.

Refused, because they surprise: duplicate keys, anchors, aliases, merge keys, tags, several
documents, keys that are not text. Nothing in a file is ever executed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path as FilePath
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from dlmkit import files
from dlmkit.errors import RecipeError
from dlmkit.recipe.problems import Mark, Path, Problem, report
from dlmkit.recipe.tree import Node
from dlmkit.registry.complaints import kind_of

MAX_DEPTH = 40
MAX_BYTES = 1_000_000

_NODES = (AliasEvent, ScalarEvent, MappingStartEvent, SequenceStartEvent)
_SURROGATE = re.compile("[\ud800-\udfff]")
_INT = re.compile(r"[-+]?[0-9]{1,400}|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def scalar(text: str) -> Any:
    """What a plain (unquoted) scalar means: None, bool, int, float or the text itself."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INT.fullmatch(text):
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def read_file(path: FilePath, problems: list[Problem], order: int = 0) -> Node:
    """The tree of a file; what strict YAML refuses is added to ``problems``.

    Raises RecipeError if the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        text = files.read_bytes(path, MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}: {error.reason})") from error
    except OSError as error:
        why = error.strerror or error
        raise RecipeError(f"{path} cannot be read as a recipe: {why}") from error
    return read_text(text, str(path), problems, order)


def read_text(text: str, origin: str, problems: list[Problem], order: int = 0) -> Node:
    """Like :func:`read_file` for a recipe's text; ``origin`` names it in messages."""
    node = parse(text, lambda line, column: Mark(order, origin, line, column), problems)
    if node is None:
        raise RecipeError(f"{origin}: the file is empty; a recipe is a mapping of keys to values")
    if not isinstance(node.value, dict):
        what = f"a recipe is a mapping of keys to values, not {kind_of(node.value)}"
        raise report([*problems, Problem(node.mark, (), what)])
    return node


def grown(value: Any, marks: Iterator[Mark], problems: list[Problem], path: Path = ()) -> Node:
    """The tree of Python values, each at one of ``marks``; what no recipe can hold is added to
    ``problems``.

    Paths are text, tuples are lists, and parts and other configs the mappings they stand for.
    """
    mark = next(marks)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        if len(path) < MAX_DEPTH:
            below = {k: grown(v, marks, problems, (*path, k)) for k, v in value.items()}
            return Node(below, mark, {key: node.mark for key, node in below.items()})
    elif isinstance(value, list | tuple) and len(path) < MAX_DEPTH:
        return Node([grown(v, marks, problems, (*path, i)) for i, v in enumerate(value)], mark)
    elif isinstance(value, PurePath):
        return Node(str(value), mark)
    elif value is None or isinstance(value, bool):
        return Node(value, mark)
    elif isinstance(value, Real):
        return Node(int(value) if isinstance(value, Integral) else float(value), mark)
    elif isinstance(value, str) and not _SURROGATE.search(value):
        return Node(value, mark)
    what = f"{files.quoted(value)} ({type(value).__name__}) cannot stand in a recipe"
    problems.append(Problem(mark, path, what))
    return Node(None, mark)


def parse(text: str, mark: Callable[[int, int], Mark], problems: list[Problem]) -> Node | None:
    """The tree of any YAML text, or None if it holds no value. ``mark`` makes positions."""
    reader = _Reader(mark, problems)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            reader.feed(event)
    except ReaderError as error:
        before = text[: error.position]
        place = mark(before.count("\n") + 1, len(before) - before.rfind("\n"))
        what = f"the character U+{int(error.character):04X} is not allowed in YAML"
        raise report([*problems, Problem(place, (), what)]) from error
    except MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        place = mark(at.line + 1, at.column + 1) if at else mark(1, 1)
        words = " ".join(filter(None, (error.problem, error.context and f"({error.context})")))
        raise report([*problems, Problem(place, (), f"not YAML: {words}")]) from error
    except YAMLError as error:
        raise report([*problems, Problem(mark(1, 1), (), f"not YAML: {error}")]) from error
    return reader.root


def _shown(text: str) -> str:
    """``text`` in a few characters."""
    return text if len(text) <= 24 else f"{text[:12]}... ({len(text)} characters)"


class _Reader:
    """Builds a tree from parse events, without recursion, noting every problem."""

    def __init__(self, mark: Callable[[int, int], Mark], problems: list[Problem]) -> None:
        self.mark = mark
        self.problems = problems
        self.root: Node | None = None
        self.documents = 0
        self.open: list[Node] = []
        self.keys: list[str] = []  # of each open dict, its latest key
        self.awaits: list[bool] = []  # of each open dict, whether a key comes next

    def feed(self, event: Event) -> None:
        mark = self.mark(event.start_mark.line + 1, event.start_mark.column + 1)
        self._refuse(event, mark)
        if isinstance(event, MappingEndEvent | SequenceEndEvent):
            for stack in (self.open, self.keys, self.awaits):
                stack.pop()
        elif self._expects_key() and isinstance(event, _NODES):
            self._key(event, mark)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            self._start(Node({} if isinstance(event, MappingStartEvent) else [], mark))
        elif isinstance(event, ScalarEvent):
            text = _SURROGATE.sub("?", event.value)
            self._add(Node(self._number(text, mark) if event.style is None else text, mark))
        elif isinstance(event, AliasEvent):
            self._add(Node(None, mark))

    def _number(self, text: str, mark: Mark) -> Any:
        """What a plain scalar means; numbers that no option can hold are problems."""
        value = scalar(text)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            self._problem(mark, f"integers have 64 bits, and {_shown(text)} has more")
            return 0
        if isinstance(value, float) and math.isinf(value) and text not in _SPECIAL:
            self._problem(mark, f"{_shown(text)} is larger than numbers can be (about 1.8e308)")
            return 0
        return value

    def _refuse(self, event: Event, mark: Mark) -> None:
        if isinstance(event, DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self._problem(mark, "a recipe is one document, and this starts a second one")
            if event.version not in (None, (1, 2)):
                self._problem(mark, "recipes are YAML 1.2: leave the %YAML line out")
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            sign = "*" if isinstance(event, AliasEvent) else "&"
            self._problem(mark, f"anchors and aliases ({sign}{anchor}) are not allowed: repeat it")
        if isinstance(event, ScalarEvent) and _SURROGATE.search(event.value):
            self._problem(mark, "half of a surrogate pair is not text")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._problem(mark, f"tags ({tag}) are not allowed: recipes hold plain values")

    def _expects_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].value, dict) and self.awaits[-1]

    def _key(self, event: Event, mark: Mark) -> None:
        if not isinstance(event, ScalarEvent):
            raise report([*self.problems, Problem(mark, self._path(), "a key must be text")])
        key, node = _SURROGATE.sub("?", event.value), self.open[-1]
        if event.style is None and key == "<<":
            self._problem(mark, "merge keys (<<) are not allowed: use extends, or repeat it")
        elif event.style is None and not isinstance(scalar(key), str):
            self._problem(mark, f"a key must be text, and {key or 'an empty key'} is not: quote it")
        elif key in node.keys:
            what = f"the key {key!r} is given twice (first in line {node.keys[key].line})"
            self._problem(mark, what)
        node.keys.setdefault(key, mark)
        self.keys[-1], self.awaits[-1] = key, False

    def _start(self, node: Node) -> None:
        if len(self.open) >= MAX_DEPTH:
            what = f"nested more than {MAX_DEPTH} levels deep"
            raise report([*self.problems, Problem(node.mark, (), what)])
        self._add(node)
        self.open.append(node)
        self.keys.append("")
        self.awaits.append(True)

    def _add(self, node: Node) -> None:
        if not self.open:
            self.root = self.root or node
        elif isinstance(self.open[-1].value, list):
            self.open[-1].value.append(node)
        else:
            self.open[-1].value.setdefault(self.keys[-1], node)
            self.awaits[-1] = True

    def _problem(self, mark: Mark, what: str) -> None:
        self.problems.append(Problem(mark, self._path(), what))

    def _path(self) -> Path:
        """The path of what is read next."""
        steps: list[str | int] = []
        for depth, node in enumerate(self.open, start=1):
            innermost = depth == len(self.open)
            if isinstance(node.value, list):
                steps.append(len(node.value) - (not innermost))
            elif not (innermost and self.awaits[-1]):
                steps.append(self.keys[depth - 1])
        return tuple(steps)

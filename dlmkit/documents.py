"""JSON of strangers: read to a limit, no deeper than a reader can go, and of the shape it needs.

Whatever dlmkit reads as JSON is read here, its own files included, since anybody can put one in a
folder. Every fault is a ValueError of one sentence, which the reader turns into the error whose
exit code is documented for its kind of file. Imports no torch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json

from dlmkit import files

MAX_DEPTH = 64
"""Levels of lists and objects within each other; dlmkit writes fewer than 20."""

DIGITS = 20
"""Characters of an integer: those of 64 bits, with its sign."""

_SURROGATE = re.compile("[\ud800-\udfff]")
T = TypeVar("T")


class Shape(BaseModel):
    """What a reader needs of an object; its other keys are no matter."""

    model_config = ConfigDict(frozen=True)


def read(path: Path, limit: int | None = files.DOCUMENT) -> Any:
    """The JSON in the regular file ``path``. Raises OSError, or ValueError as :func:`parse`."""
    return parse(files.read_bytes(path, limit))


def parse(text: str | bytes) -> Any:
    """The value that ``text``, UTF-8 if it is bytes, means.

    Raises ValueError for what is no JSON, is nested deeper than :data:`MAX_DEPTH`, or holds an
    integer of more than 64 bits or half of a surrogate pair, which is no text.
    """
    try:
        whole = text.decode() if isinstance(text, bytes) else text
        content = json.loads(whole, parse_int=_integer)
    except RecursionError:
        raise ValueError(_DEEP) from None
    _check(content)
    return content


_DEEP = f"it is nested more than {MAX_DEPTH} levels deep"


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"it holds an integer of {len(digits)} digits")
    return int(digits)


def _check(content: Any) -> None:
    level, depth = [content], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(_DEEP)
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                check_text(value)
        level, depth = below, depth + 1


def digest(content: Any) -> str:
    """The sha256 of what ``content`` says, whatever the order of its keys: the seal of a document
    that holds it, so that an edit is noticed."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_text(text: str) -> None:
    """Raise ValueError if ``text`` cannot be written down: JSON can spell half a character."""
    if not text.isascii() and (half := _SURROGATE.search(text)):
        raise ValueError(f"it holds half of a surrogate pair (U+{ord(half[0]):04X}), no text")


def shaped(content: Any, kind: type[T]) -> T:
    """``content``, which JSON gave, as a ``kind``: a :class:`Shape`, a dataclass, ``dict[...]``.

    Numbers are numbers and text is text: nothing is converted, but an integer to a float. Raises
    ValueError that says where, what was expected and what is there.
    """
    try:
        # by way of JSON: there, and not from Python, strict types take objects and lists
        found: T = _adapter(cast(Hashable, kind)).validate_json(to_json(content), strict=True)
        return found
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place = ".".join(_key(step) for step in first["loc"])
    expected = first["msg"].replace("Input should be", "expected", 1)
    expected = f"{expected[0].lower()}{expected[1:]}"
    if first["type"] == "missing":
        raise ValueError(f"it has no {place}") from None
    at = f"{place}: " if place else ""
    raise ValueError(f"{at}{expected}, got {files.quoted(first['input'])}") from None


def _key(step: int | str) -> str:
    plain = isinstance(step, int) or re.fullmatch(r"[\w./ -]{1,60}", step, re.ASCII)
    return str(step) if plain else files.quoted(step)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)

"""Documents: the files in which dlmkit says what it made, measured or promises.

Whatever is read as JSON is read here, dlmkit's own files included, since anybody can put one in a
folder: to a limit, no deeper than a reader can go, and of the shape it needs. Every fault of it is
a ValueError of one sentence; :class:`Kind` turns it into the error whose exit code is documented.

What a document holds is covered by its own sha256, so that an edit is noticed. It is written as a
whole, where nothing was. Two of them are compared leaf by leaf. Imports torch for tensors alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json

from dlmkit import files
from dlmkit.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

MAX_DEPTH = 64
"""Levels of lists and objects within each other; dlmkit writes fewer than 20."""

DIGITS = 20
"""Characters of an integer: those of 64 bits, with its sign."""

SEAL = "sha256"
"""The key of a document's own digest."""

PACKAGES = ("dlmkit", "torch", "numpy", "transformers", "tokenizers")
"""What decides, beside the model, what is computed."""

_SURROGATE = re.compile("[\ud800-\udfff]")
T = TypeVar("T")


class Shape(BaseModel):
    """What a reader needs of an object; other keys do not matter."""

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


def digest(content: Any, tensors: Mapping[str, Tensor] | None = None) -> str:
    """The sha256 of what ``content`` says, whatever the order of its keys, and of ``tensors``:
    their names, types, shapes and bytes, on whatever device they are."""
    total = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    if tensors:
        import torch  # which no document without tensors needs

        for name, tensor in sorted(tensors.items()):
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().view(-1)
            total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


def sealed(
    content: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """``content`` with its own digest under :data:`SEAL`."""
    return {**content, SEAL: digest(content, tensors)}


def intact(content: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> bool:
    """Whether ``content`` is what :func:`sealed` made it."""
    bare = {key: value for key, value in content.items() if key != SEAL}
    return content.get(SEAL) == digest(bare, tensors)


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
        value: T = _adapter(cast(Hashable, kind)).validate_json(to_json(content), strict=True)
        return value
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


@dataclass(frozen=True)
class Kind:
    """A kind of sealed documents: objects whose key ``name`` holds the number of their format.

    ``writer`` is the command that writes one, and ``again`` what to do in place of using one that
    cannot be used, for messages.
    """

    name: str
    writer: str
    again: str
    format: int = 1

    def sealed(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """``content`` as a document of this kind."""
        return sealed({self.name: self.format, **content})

    def read(self, path: Path, shape: type[Any] | None = None) -> dict[str, Any]:
        """The document in ``path`` without its seal, which holds, and of ``shape``, if given.

        Raises UsageError if there is none or it is of another format, CheckpointError if it is
        truncated, altered or of another shape.
        """
        try:
            content = read(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {files.why(error)}") from error
        except ValueError as error:
            raise CheckpointError(f"{path} is truncated or not JSON: {error}") from error
        if not isinstance(content, dict) or self.name not in content:
            raise UsageError(f"{path} is no {self.name}: '{self.writer}' writes one")
        check_format(path, content[self.name], self.format, self.again, content)
        if not intact(content):
            raise CheckpointError(f"{path} has been altered since it was written: {self.again}")
        try:
            if shape is not None:
                shaped(content, shape)
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        del content[SEAL]
        return content


def check_format(
    path: Path, given: Any, known: int, again: str, content: Mapping[str, Any] | None = None
) -> None:
    """Raise UsageError unless ``path`` is of the format ``known``; ``content`` may say of which
    version of dlmkit it is, and ``again`` what to do."""
    if given == known:
        return
    writer: Any = content
    for key in ("protocol", "software", "dlmkit"):
        writer = writer.get(key) if isinstance(writer, dict) else None
    version = f" (written by {files.quoted(writer)})" if isinstance(writer, str) else ""
    raise UsageError(
        f"{path} is of format {files.quoted(given)}{version}, and this dlmkit reads {known}: "
        f"{again}, or read it with the version that wrote it"
    )


def text(content: Any) -> str:
    """``content`` as JSON that people can read too. Raises ValueError for what JSON cannot say,
    such as infinity."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(path: Path, content: str | bytes) -> None:
    """Write a file, which may be there. Raises UsageError if it cannot be written."""
    with writing(path):
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_new(path: Path, content: str | bytes) -> None:
    """Make the file ``path``, whole or not at all. Raises UsageError if it is there, or cannot be
    written."""
    with writing(path):
        files.write_new(path, content)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses inside is a UsageError: ``path`` cannot be written."""
    try:
        yield
    except FileExistsError as error:
        raise UsageError(_taken(path)) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {files.why(error)}") from error


def check_new(*paths: Path | None) -> None:
    """Raise UsageError, before any work, for a file that could not be made after it."""
    for path in paths:
        if path is not None and path.exists():
            raise UsageError(_taken(path))
    check_writable(*paths)


def check_writable(*paths: Path | None) -> None:
    """The same for a file that may be there: it is replaced."""
    for path in paths:
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder} to write {path.name} to")
        if path.is_dir():
            raise UsageError(f"{path} cannot be written: it is a folder")
        _check_permission(path if path.exists() else folder, path)


def check_new_folder(path: Path) -> None:
    """Raise UsageError unless ``path`` is nothing yet, or an empty folder, and can be written."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(_taken(path))
    check_folder(path)


def check_folder(path: Path) -> None:
    """The same for a folder that may be there, with whatever it holds."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"{path} cannot be made: {there} is a file")
    _check_permission(there, path)


def _check_permission(place: Path, path: Path) -> None:
    if not os.access(place, os.W_OK):
        raise UsageError(f"{path} cannot be written: this user may not write to {place}")


def _taken(path: Path) -> str:
    return f"{path} exists already: give another name, or remove it"


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """The installed version of each of ``packages``; None where there is none."""
    installed: dict[str, str | None] = {}
    for package in packages:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = None
    return installed


ABSENT = object()
"""What stands in a :class:`Difference` where a key is not given."""


class Difference(NamedTuple):
    """A path of keys and indices with its value before and after, or :data:`ABSENT`."""

    path: tuple[str | int, ...]
    before: Any
    after: Any

    @property
    def key(self) -> str:
        """``metric.0.with.order``."""
        return ".".join(map(str, self.path))

    def __str__(self) -> str:
        return f"{self.key}: {word(self.before)} -> {word(self.after)}"


def differences(before: Any, after: Any, path: tuple[str | int, ...] = ()) -> Iterator[Difference]:
    """The deepest paths at which two plain values differ, in the order of the first."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys((*before, *after)):
            pair = before.get(key, ABSENT), after.get(key, ABSENT)
            yield from differences(*pair, (*path, str(key)))
    elif isinstance(before, list) and isinstance(after, list):
        for index, pair in enumerate(zip_longest(before, after, fillvalue=ABSENT)):
            yield from differences(*pair, (*path, index))
    elif before != after or _number(before) is not _number(after):
        yield Difference(path, before, after)


def _number(value: Any) -> type | None:
    """1, 1.0 and True are equal, and not the same."""
    return type(value) if isinstance(value, int | float) else None


def word(value: Any) -> str:
    """``value`` as a message shows it; of a digest the beginning."""
    if value is ABSENT:
        return "nothing"
    said = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"{said[:12]}..." if len(said) == 64 and said.isalnum() else said

"""The evaluation record: numbers of texts, and everything that moves them. One JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from dlmkit import documents, files
from dlmkit.errors import CheckpointError, UsageError
from dlmkit.exact.intervals import jackknife

FORMAT = 1
RECORD, FRONTIER = "dlmkit-evaluation-record", "dlmkit-evaluation-frontier"
UNKNOWN = "unknown"
"""What stands for how texts were sampled where nobody said."""
_ABSENT = object()


@dataclass(frozen=True)
class Record:
    """``results`` maps a metric to its numbers, each with value, low, high and error.

    ``protocol`` must be the same for two records to be compared. ``subject`` is whom the texts
    are of, ``samples`` what they are, and ``execution`` what moves nothing but rounding.
    ``left_out`` holds the numbers once more with each part of the texts left out, which is what
    intervals are made of: {metric: {"count": texts, "numbers": {name: a value a part}}}.
    """

    subject: Mapping[str, Any]
    protocol: Mapping[str, Any]
    samples: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    execution: Mapping[str, Any]
    left_out: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """As JSON types, sealed by a hash."""
        return sealed({RECORD: FORMAT, **asdict(self)})

    @staticmethod
    def of(content: Mapping[str, Any]) -> Record:
        """The record that :meth:`content` wrote."""
        names = ("subject", "protocol", "samples", "results", "execution")
        return Record(
            **{name: content[name] for name in names}, left_out=content.get("left_out", {})
        )

    @staticmethod
    def load(path: Path) -> Record:
        """The record in ``path``.

        Raises UsageError if there is none or it is of another format, CheckpointError if it is
        truncated or altered.
        """
        content = read(path, RECORD)
        try:
            documents.shaped(content, _Content)
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        return Record.of(content)


class Estimate(documents.Shape):
    """A measured number with its 95 % interval and standard error, where they are known."""

    value: float | None
    low: float | None
    high: float | None
    error: float | None


class _Samples(documents.Shape):
    sha256: str


class _LeftOut(documents.Shape):
    count: PositiveInt
    numbers: dict[str, list[float]]


class _Content(documents.Shape):
    """What is read of a record."""

    subject: dict[str, Any]
    protocol: dict[str, Any]
    samples: _Samples
    results: dict[str, dict[str, Estimate]]
    execution: dict[str, Any]
    left_out: dict[str, _LeftOut] = Field(default_factory=dict)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with its own sha256, so that an edit is noticed."""
    return {**content, "sha256": documents.digest(content)}


def save(content: Mapping[str, Any], path: Path) -> None:
    """Write it to the new file ``path``. Raises UsageError if it cannot be written."""
    try:
        files.write_new(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def check_new(*paths: Path | None) -> None:
    """Raise UsageError, before any work, for a file that could not be written after it."""
    for path in paths:
        if path is not None and path.exists():
            raise UsageError(f"{path} exists already: give another name, or remove it")
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"there is no folder {path.absolute().parent} to write {path.name} to")


def read(path: Path, kind: str, writer: str = "dlmkit eval MODEL --out FILE") -> dict[str, Any]:
    """The document of ``kind`` in ``path``, which ``writer`` writes, verified.

    Raises UsageError if there is none or it is of another format, CheckpointError if it is
    truncated or altered.
    """
    try:
        content = documents.read(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is truncated or not JSON: {error}") from error
    if not isinstance(content, dict) or kind not in content:
        raise UsageError(f"{path} is no {kind}: '{writer}' writes one")
    if content[kind] != FORMAT:
        raise UsageError(
            f"{path} is of format {files.quoted(content[kind])}{_writer(content)}, and this dlmkit "
            f"reads format {FORMAT}: evaluate again, or read it with the version that wrote it"
        )
    seal = content.pop("sha256", None)
    if seal != documents.digest(content):
        raise CheckpointError(f"{path} has been altered since it was written: evaluate again")
    return content


def _writer(content: Any) -> str:
    """Which dlmkit wrote a document, if it says so."""
    for key in ("protocol", "software", "dlmkit"):
        content = content.get(key) if isinstance(content, dict) else None
    return f" (written by {files.quoted(content)})" if isinstance(content, str) else ""


def texts_digest(texts: Iterable[str]) -> str:
    """The sha256 of ``texts`` in their order."""
    return documents.digest(list(texts))


@dataclass(frozen=True)
class Change:
    """A number before and after, and the 95 % interval of the difference where it is known."""

    metric: str
    name: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None

    @property
    def differs(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low is not None and self.high is not None and not self.low <= 0.0 <= self.high


def compare(before: Record, after: Record, across: Sequence[str] = ()) -> list[Change]:
    """What changed, number by number.

    ``across`` names the keys of the protocol that may differ because they are what is compared.
    Raises UsageError, naming every other difference. The interval is a paired jackknife: text i
    of both is left out together, which is right whether they share a prompt, a held-out row or
    their noise, or nothing. It is not known for unequal numbers of texts.
    """
    unlike = [line for path, line in differences(before, after) if not set(path) & set(across)]
    if unlike:
        raise UsageError(
            "these records do not compare, their protocols differ:\n  " + "\n  ".join(unlike) + "\n"
            "evaluate both the same way; if one of these is what you compare, name it: --across KEY"
        )
    return list(_changes(before, after))


def differences(before: Record, after: Record) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path of the key, what differs) for every leaf of the protocols."""
    one, two = (dict(_leaves(record.protocol)) for record in (before, after))
    for path in [*one, *(path for path in two if path not in one)]:
        a, b = one.get(path, _ABSENT), two.get(path, _ABSENT)
        if a != b:
            values = f"{_word(a)} and {_word(b)}"
            yield path, f"{'.'.join(path)}: {values}"


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    else:
        yield path, value


def _word(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"{text[:12]}..." if len(text) == 64 and text.isalnum() else text


def _changes(before: Record, after: Record) -> Iterator[Change]:
    for metric, numbers in before.results.items():
        others = after.results.get(metric, {})
        left = [record.left_out.get(metric, _NOTHING) for record in (before, after)]
        for name, one in numbers.items():
            two = others.get(name)
            if two is None or name.startswith("human_"):
                continue
            a, b = one["value"], two["value"]
            low, high = None, None
            if a is not None and b is not None and left[0]["count"] == left[1]["count"]:
                one_left, two_left = (each["numbers"].get(name, ()) for each in left)
                low, high = _difference(b - a, one_left, two_left, left[0]["count"])
            yield Change(metric, name, a, b, low, high)


_NOTHING: Mapping[str, Any] = {"count": 0, "numbers": {}}


def _difference(
    value: float, one: Sequence[float], two: Sequence[float], count: int
) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of two minus one, a number of ``count`` texts with each part left out."""
    if len(one) != len(two) or len(one) < 2:
        return None, None
    return jackknife(value, [b - a for a, b in zip(one, two, strict=True)], count).interval

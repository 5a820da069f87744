"""The evaluation record: numbers of texts, and everything that moves them. One JSON file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from dlmkit import documents
from dlmkit.errors import UsageError
from dlmkit.exact.intervals import jackknife

RECORD, FRONTIER = (
    documents.Kind(name, "dlmkit eval MODEL --out FILE", "evaluate again")
    for name in ("dlmkit-evaluation-record", "dlmkit-evaluation-frontier")
)
UNKNOWN = "unknown"
"""What stands for how texts were sampled where nobody said."""


@dataclass(frozen=True)
class Record:
    """``results`` maps a metric to its numbers, each with value, low, high and error.

    ``protocol`` must be the same for two records to be compared. ``subject`` is whom the texts
    are of, ``samples`` what they are, and ``execution`` what moves nothing but rounding.
    ``left_out`` holds the numbers once more with each part of the texts left out, which is what
    intervals are made of: {metric: {"count": texts, "numbers": {name: one value per part}}}.
    """

    subject: Mapping[str, Any]
    protocol: Mapping[str, Any]
    samples: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    execution: Mapping[str, Any]
    left_out: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """As JSON types, sealed by a hash."""
        return RECORD.sealed(asdict(self))

    @staticmethod
    def of(content: Mapping[str, Any]) -> Record:
        """The record that :meth:`content` wrote."""
        names = ("subject", "protocol", "samples", "results", "execution")
        return Record(
            **{name: content[name] for name in names}, left_out=content.get("left_out", {})
        )

    @staticmethod
    def load(path: Path) -> Record:
        """The record in ``path``. Raises what :meth:`dlmkit.documents.Kind.read` raises."""
        return Record.of(RECORD.read(path, _Content))


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


@dataclass(frozen=True)
class NumberChange:
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


def compare(before: Record, after: Record, across: Sequence[str] = ()) -> list[NumberChange]:
    """What changed, number by number.

    ``across`` names the keys of the protocol that may differ because they are what is compared.
    Raises UsageError, naming every other difference. The interval is a paired jackknife: text i
    of both is left out together, which is right whether they share a prompt, a held-out row or
    their noise, or nothing. It is not known for unequal numbers of texts.
    """
    differences = documents.differences(before.protocol, after.protocol)
    unlike = [
        str(difference) for difference in differences if not set(difference.path) & set(across)
    ]
    if unlike:
        raise UsageError(
            "these records do not compare, their protocols differ:\n  " + "\n  ".join(unlike) + "\n"
            "evaluate both the same way; if one of these is what you compare, name it: --across KEY"
        )
    return list(_changes(before, after))


def _changes(before: Record, after: Record) -> Iterator[NumberChange]:
    for metric, numbers in before.results.items():
        others = after.results.get(metric, {})
        left = [record.left_out.get(metric, _NOTHING) for record in (before, after)]
        for name, number in numbers.items():
            two = others.get(name)
            if two is None or name.startswith("human_"):
                continue
            a, b = number["value"], two["value"]
            low, high = None, None
            if a is not None and b is not None and left[0]["count"] == left[1]["count"]:
                one_left, two_left = (side["numbers"].get(name, ()) for side in left)
                low, high = _difference(b - a, one_left, two_left, left[0]["count"])
            yield NumberChange(metric, name, a, b, low, high)


_NOTHING: Mapping[str, Any] = {"count": 0, "numbers": {}}


def _difference(
    value: float, before: Sequence[float], after: Sequence[float], count: int
) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of two minus one, a number of ``count`` texts with each part left out."""
    if len(before) != len(after) or len(before) < 2:
        return None, None
    return jackknife(value, [b - a for a, b in zip(before, after, strict=True)], count).interval

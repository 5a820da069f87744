"""The result of a run as one JSON document in the shape of pytest-benchmark's.

``benchmarks[]`` has one entry per case, with ``stats`` of its seconds and everything else in
``extra_info``. What belongs to the whole run (protocol, versions, verdicts, curves for plots)
stands under ``dlmkit``, which pytest-benchmark ignores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat

from dlmkit import documents
from dlmkit.bench.timing import summary
from dlmkit.checkout import commit_of
from dlmkit.errors import UsageError
from dlmkit.version import __version__

Document = Mapping[str, Any]

FORMAT = 1


def document(
    machine: Mapping[str, Any],
    protocol: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything of one run."""
    return {
        "machine_info": dict(machine),
        "commit_info": commit_info(),
        "benchmarks": list(entries),
        "datetime": datetime.now(UTC).isoformat(),
        "version": __version__,
        "dlmkit": {
            "format": FORMAT,
            "protocol": dict(protocol),
            "versions": documents.versions(),
            **more,
        },
    }


def entry(
    group: str,
    name: str,
    params: Mapping[str, Any],
    seconds: Sequence[float],
    extra: Mapping[str, Any],
    command: str = "sampler",
) -> dict[str, Any]:
    """One entry of ``benchmarks[]``, made by ``dlmkit bench`` and ``command``."""
    return {
        "group": group,
        "name": name,
        "fullname": f"dlmkit bench {command}::{name}",
        "params": dict(params),
        "param": None,
        "extra_info": dict(extra),
        "options": {"timer": "torch.utils.benchmark", "warmup": True},
        "stats": summary(seconds),
    }


def commit_info() -> dict[str, Any]:
    """The commit of dlmkit's own checkout, in pytest-benchmark's words; empty outside of one."""
    commit = commit_of(Path(__file__).parent)
    return {} if commit is None else {"id": commit, "project": "dlmkit"}


def write(content: Document, path: Path) -> None:
    """Write ``content`` as JSON. Raises UsageError if the file cannot be written."""
    documents.write(path, documents.text(content))


def read(path: Path) -> Document:
    """A document that :func:`write` wrote. Raises UsageError for any other file."""
    try:
        content = documents.read(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    ours = content.get("dlmkit") if isinstance(content, dict) else None
    if not isinstance(ours, dict) or "protocol" not in ours:
        raise UsageError(
            f"{path} was not written by 'dlmkit bench ... --json FILE': it says no protocol"
        )
    documents.check_format(path, ours.get("format"), FORMAT, "measure again")
    try:
        documents.shaped(content, _Content)
    except ValueError as error:
        raise UsageError(
            f"{path} was not written by 'dlmkit bench ... --json FILE': {error}"
        ) from error
    document: Document = content
    return document


class _Stats(documents.Shape):
    min: PositiveFloat


class _Extra(documents.Shape):
    evaluations_mean: PositiveFloat | None = None
    quality: dict[str, float | None] = Field(default_factory=dict)


class _Case(documents.Shape):
    name: str
    stats: _Stats
    extra_info: _Extra


class _Own(documents.Shape):
    protocol: dict[str, Any]
    versions: dict[str, str | None]


class _Content(documents.Shape):
    """What is read of a document."""

    benchmarks: list[_Case]
    dlmkit: _Own

"""Two documents side by side, and a gate on what got worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlmkit import documents
from dlmkit.bench.document import Document
from dlmkit.bench.quality import headline
from dlmkit.errors import UsageError


@dataclass(frozen=True)
class Change:
    """One case before and after. ``slower`` and ``more`` are relative: 0.05 is 5 % worse.

    Time is compared by the fastest round, which other load on the machine disturbs least. A
    plugin's case counts no ``evaluations``.
    """

    name: str
    seconds: tuple[float, float]
    evaluations: tuple[float, float] | None
    quality: tuple[Mapping[str, float], Mapping[str, float]]

    @property
    def slower(self) -> float:
        """Growth of the time."""
        return self.seconds[1] / self.seconds[0] - 1.0

    @property
    def more(self) -> float | None:
        """Growth of the evaluations, which are exact; None where none are counted."""
        return self.evaluations[1] / self.evaluations[0] - 1.0 if self.evaluations else None

    @property
    def worse_nll(self) -> float | None:
        """Growth of the negative log-likelihood; None where there is none."""
        before, after = (quality.get("nll") for quality in self.quality)
        return after / before - 1.0 if before and after is not None else None

    def failures(self, limit: float) -> list[str]:
        """What grew by more than ``limit``."""
        grown = {"time": self.slower, "evaluations": self.more, "nll": self.worse_nll}
        return [
            f"{self.name}: {what} +{100 * value:.1f} %"
            for what, value in grown.items()
            if value is not None and value > limit
        ]


@dataclass(frozen=True)
class CaseComparison:
    """The cases that both documents have, and the names of those that only one has."""

    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    notes: tuple[str, ...]

    def failures(self, limit: float) -> list[str]:
        """What got worse by more than ``limit``; a case that has gone is a failure too."""
        grown = [line for change in self.changes for line in change.failures(limit)]
        return grown + [f"{name}: no longer measured" for name in self.only_before]


def compare(before: Document, after: Document) -> CaseComparison:
    """The changes from ``before`` to ``after``.

    Raises UsageError if their protocols differ, naming what does, or if they share no case.
    """
    unlike, versions = (
        [
            str(difference)
            for difference in documents.differences(before["dlmkit"][key], after["dlmkit"][key])
        ]
        for key in ("protocol", "versions")
    )
    if unlike:
        raise UsageError(
            "these runs cannot be compared, as they were made by different protocols:\n  "
            + "\n  ".join(unlike)
            + "\nrepeat one of them with the other's options, on the same machine"
        )
    old, new = ({e["name"]: e for e in d["benchmarks"]} for d in (before, after))
    shared = [name for name in old if name in new]
    if not shared:
        raise UsageError("these runs have no case in common")
    return CaseComparison(
        tuple(_change(name, old[name], new[name]) for name in shared),
        tuple(name for name in old if name not in new),
        tuple(name for name in new if name not in old),
        tuple(versions),
    )


def _change(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    seconds = before["stats"]["min"], after["stats"]["min"]
    old, new = before["extra_info"], after["extra_info"]
    counted = "evaluations_mean" in old and "evaluations_mean" in new
    evaluations = (old["evaluations_mean"], new["evaluations_mean"]) if counted else None
    quality = headline(old.get("quality", {})), headline(new.get("quality", {}))
    return Change(name, seconds, evaluations, quality)

"""Certificates: an exit rule or a quota, what was shown of it, and where that holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dlmkit import documents

CERTIFICATE = documents.Kind(
    "dlmkit-exit-certificate", "dlmkit exit calibrate TRACE --out FILE", "calibrate again"
)


@dataclass(frozen=True)
class Certificate:
    """With probability 1 - delta over the ``texts``, the rule's expected loss is <= epsilon.

    ``rule`` is the part with its threshold, every option resolved, which stands under ``key`` in a
    recipe: an exit rule, or a sampler with its quota. ``guarantee`` holds epsilon,
    delta, the loss and its tolerance; ``conditions`` all that it holds under, which is compared
    before the rule is applied; ``evidence`` what was measured, which is not.
    """

    rule: Mapping[str, Any]
    threshold: float
    guarantee: Mapping[str, Any]
    conditions: Mapping[str, Any]
    evidence: Mapping[str, Any]
    key: Literal["exit", "sampler"] = "exit"

    def save(self, path: Path) -> None:
        """Write it to the new file ``path``. Raises UsageError if it cannot be written."""
        content = asdict(self)
        if self.key == "exit":  # as certificates are that were written before there were others
            del content["key"]
        documents.write_new(path, documents.text(CERTIFICATE.sealed(content)))

    @staticmethod
    def load(path: Path) -> Certificate:
        """The certificate in ``path``. Raises what :meth:`dlmkit.documents.Kind.read` raises."""
        return documents.shaped(CERTIFICATE.read(path, Certificate), Certificate)

"""Certificates: an exit rule, what was shown of it, and where that holds. One JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlmkit import documents, files
from dlmkit.errors import CheckpointError, UsageError

FORMAT = 1


@dataclass(frozen=True)
class Certificate:
    """With probability 1 - delta over the ``texts``, the rule's expected loss is <= epsilon.

    ``rule`` is the part with its threshold, every option resolved. ``guarantee`` holds epsilon,
    delta, the loss and its tolerance; ``conditions`` all that it holds under, which is compared
    before the rule is applied; ``evidence`` what was measured, which is not.
    """

    rule: Mapping[str, Any]
    threshold: float
    guarantee: Mapping[str, Any]
    conditions: Mapping[str, Any]
    evidence: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write it to the new file ``path``. Raises UsageError if it cannot be written."""
        content = {"dlmkit-exit-certificate": FORMAT, **asdict(self)}
        text = json.dumps(
            {**content, "sha256": documents.digest(content)}, indent=2, ensure_ascii=False
        )
        try:
            files.write_new(path, text + "\n")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error

    @staticmethod
    def load(path: Path) -> Certificate:
        """The certificate in ``path``.

        Raises UsageError if there is none, CheckpointError if it is truncated or altered.
        """
        try:
            content = documents.read(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise CheckpointError(f"{path} is truncated or no certificate: {error}") from error
        if not isinstance(content, dict) or "dlmkit-exit-certificate" not in content:
            raise UsageError(f"{path} is no exit certificate: 'dlmkit exit calibrate' writes them")
        if content.pop("sha256", None) != documents.digest(content):
            raise CheckpointError(f"{path} has been altered: calibrate again for other settings")
        if content.pop("dlmkit-exit-certificate") != FORMAT:
            raise UsageError(f"{path} is of another format; this dlmkit reads {FORMAT}")
        try:
            return documents.shaped(content, Certificate)
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error

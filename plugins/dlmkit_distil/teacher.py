"""A frozen model that another learns from, beside its weights and outside of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dlmkit import documents, files
from dlmkit.core.objective import Objective
from dlmkit.errors import CheckpointError, DataError

FILE = "teacher.json"


class _Identity(documents.Shape):
    teacher: str
    sha256: str


class Teacher:
    """The model that ``reference`` means, opened when it is first asked for.

    It is no module of the student's, so that no checkpoint, average or wrapper holds it, and
    copies of the student share it. A checkpoint in ``folder`` says which model it was there.
    """

    def __init__(self, reference: str, folder: Path | None = None) -> None:
        self.reference = reference
        self._opened: Any = None
        self._sha256 = None if folder is None else _recorded(folder / FILE)

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self

    @property
    def assembly(self) -> Any:
        """Its parts, of the moving average's weights, on the CPU until :meth:`on` moves them.

        Raises what ``load_model`` does, and DataError where the student had another teacher.
        """
        if self._opened is None:
            from dlmkit.model import load_model  # a model is built of parts like these

            with torch.random.fork_rng(devices=[]):
                model = load_model(self.reference)
            digest = model.digest()
            if self._sha256 not in (None, digest):
                raise DataError(
                    f"{self.reference}: this is not the teacher that the run was trained by: its "
                    "weights or options differ; put it back, or start anew with --out ANOTHER"
                )
            self._opened, self._sha256 = model.assembly, digest
            self.objective.eval().requires_grad_(False)
        return self._opened

    @property
    def objective(self) -> Objective:
        objective: Objective = self.assembly.objective
        return objective

    def on(self, device: torch.device) -> Objective:
        """Its space, schedule and denoiser, on ``device``."""
        return self.objective.to(device)

    def save(self, folder: Path) -> None:
        """Write into ``folder`` which model it is, where that is known."""
        if self._sha256 is not None:
            identity = {"teacher": self.reference, "sha256": self._sha256}
            (folder / FILE).write_text(documents.text(identity), encoding="utf-8")


def _recorded(path: Path) -> str | None:
    """The digest in ``path``; None without that file. Raises CheckpointError for another one."""
    if not path.is_file():
        return None
    try:
        return documents.shaped(documents.read(path), _Identity).sha256
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {files.why(error)}") from error

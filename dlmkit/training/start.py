"""Where a run goes and what it goes on from: every refusal of ``--out`` and ``--resume``.

Imports no torch, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dlmkit import documents, files
from dlmkit.errors import CheckpointError, UsageError
from dlmkit.recipe.compare import line
from dlmkit.recipe.load import Resolved, resolve_text
from dlmkit.registry.lookup import Registry
from dlmkit.training.checkpoint import checkpoints, find, step_of, whole_ones
from dlmkit.training.folder import EMPTY, RECIPE, RunFolder

CHANGEABLE = (
    "summary",
    "train.stop_after",
    "train.checkpoint_every",
    "train.checkpoint_async",
    "train.parallel",
    "train.keep_last",
    "train.log_every",
    "train.validate_every",
    "train.validation_rows",
    "train.sample_every",
    "sample",
    "tracker",
)
"""Key paths that a resume may change: they cannot change the weights, but for how the sums of
another layout of processes round."""


@dataclass(frozen=True)
class Start:
    """A run folder, the checkpoint to go on from (None: from the beginning), and the damaged
    checkpoints after it that have to be renamed."""

    run: RunFolder
    checkpoint: Path | None = None
    damaged: tuple[Path, ...] = ()

    @property
    def source(self) -> Path | None:
        """The run that the checkpoint belongs to, if it belongs to one."""
        return _run_of(self.checkpoint) if self.checkpoint else None


def plan_start(
    resolved: Resolved, out: Path | None, resume: str | None, registry: Registry
) -> Start:
    """What ``--out`` and ``--resume`` mean for this recipe.

    Raises UsageError if the folder is in use or the recipe is not the one that the checkpoint
    was trained with, and CheckpointError if there is no whole checkpoint where one was named.
    """
    default = Path("runs") / resolved.source.stem
    if resume is None:
        return _fresh(out or default)
    start = _auto(out or default) if resume == "auto" else _named(Path(resume), out, default)
    if start.checkpoint is not None:
        _check_recipe(resolved, start.checkpoint, registry)
    return start


def _fresh(folder: Path) -> Start:
    if _holds_files(folder):
        how = "continue it with --resume auto" if (folder / RECIPE).exists() else "it is no run"
        raise UsageError(f"{folder} is not empty: {how}, or write elsewhere with --out DIR")
    return Start(RunFolder(folder))


def _auto(folder: Path) -> Start:
    if _holds_files(folder) and not (folder / RECIPE).exists():
        raise UsageError(f"{folder} is not empty and holds no run; write elsewhere with --out DIR")
    run = RunFolder(folder)
    return Start(run, find(folder) if checkpoints(run.checkpoints) else None)


def _named(reference: Path, out: Path | None, default: Path) -> Start:
    if not reference.exists():
        raise UsageError(f"--resume {reference}: there is no such run or checkpoint")
    checkpoint = find(reference)
    before = _run_of(checkpoint)
    folder = out or before or default
    if before is None or folder.resolve() != before.resolve():
        return Start(_fresh(folder).run, checkpoint)
    later = [p for p in checkpoints(checkpoint.parent) if _step(p) > _step(checkpoint)]
    whole = next(whole_ones(checkpoint.parent), checkpoint)
    if _step(whole) > _step(checkpoint):
        raise UsageError(
            f"{before} has gone on to {whole.name}, which is whole: continue from there with "
            f"--resume {before}, or branch off with --resume {checkpoint} --out ANOTHER"
        )
    return Start(RunFolder(folder), checkpoint, tuple(later))


def _run_of(checkpoint: Path) -> Path | None:
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else None


def _step(checkpoint: Path) -> int:
    return step_of(checkpoint) or 0


def _holds_files(folder: Path) -> bool:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; a run needs a folder")
    return folder.is_dir() and any(path.name not in EMPTY for path in folder.iterdir())


def _check_recipe(resolved: Resolved, checkpoint: Path, registry: Registry) -> None:
    path = checkpoint / RECIPE
    try:
        text = files.read_text(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {files.why(error)}") from error
    saved = resolve_text(text, path, (), registry)
    before, now = (r.config.model_dump(mode="json", by_alias=True) for r in (saved, resolved))
    differences = documents.differences(before, now)
    changed = [line(difference) for difference in differences if not _changeable(difference.key)]
    if changed:
        lines = "\n".join(changed)
        raise UsageError(
            f"{checkpoint} was trained with another recipe:\n{lines}\n"
            f"a resume may change only {', '.join(CHANGEABLE)}; go on with "
            f"`dlmkit train {path} --resume {checkpoint}`, or start anew with --out ANOTHER"
        )


def _changeable(path: str) -> bool:
    return any(path == key or path.startswith(f"{key}.") for key in CHANGEABLE)

"""Checkpoint folders: complete or absent, and verified byte by byte before they are read.

A save writes into a hidden sibling folder, syncs every file, lists them with size and sha256 in
``manifest.json``, and is published by one rename. A process killed at any moment leaves the
checkpoints that were there, and perhaps a hidden folder that nobody reads. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from pydantic import Field

from dlmkit import documents, files
from dlmkit.errors import CheckpointError
from dlmkit.folders import MANIFEST as MANIFEST

FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})")
_DOCUMENTS = (".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf")
SAVING, _REMOVING, _DAMAGED = ".saving-", ".removing-", "damaged-"


def checkpoint_name(step: int) -> str:
    """The folder's name: ``step-00000500``."""
    return f"step-{step:08d}"


def step_of(folder: Path) -> int | None:
    """The step that a checkpoint folder is named after; None for any other name."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else None


def checkpoints(parent: Path) -> list[Path]:
    """The checkpoint folders in ``parent``, oldest first. Leftovers of killed saves are none."""
    folders = [
        path for path in parent.glob("step-*") if step_of(path) is not None and path.is_dir()
    ]
    return sorted(folders, key=lambda path: step_of(path) or 0)


@contextmanager
def saving(final: Path) -> Iterator[None]:
    """Raise CheckpointError, with what is left, where the disk refuses to hold ``final``."""
    try:
        yield
    except OSError as error:
        whole = next(whole_ones(final.parent), None)
        kept = (
            f"the last checkpoint, {whole}, is intact"
            if whole
            else "there is no earlier checkpoint"
        )
        why = error.strerror or error
        raise CheckpointError(f"{final} could not be saved: {why}; {kept}") from error


def publish(parent: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Make the checkpoint of ``step`` from the files that ``write(folder)`` writes.

    Raises CheckpointError if the disk refuses or that checkpoint exists already; what was there
    before stays as it was.
    """
    final = parent / checkpoint_name(step)
    with saving(final):
        place(final, step, write)
    return final


def place(
    final: Path, step: int, write: Callable[[Path], None], unlisted: Collection[str] = ()
) -> None:
    """Make the folder ``final`` of what ``write(folder)`` writes, with a manifest, by one rename.

    ``unlisted`` files may be changed later. Raises OSError if the disk refuses or ``final`` exists
    and holds something; then nothing is left behind.
    """
    draft = Draft.of(final)
    with draft.or_nothing():
        draft.begin(write)
        draft.publish(step, draft.entries(lambda name: name not in unlisted))


Entries = Mapping[str, Mapping[str, Any]]
"""Size and sha256 of files, by their names inside their folder."""


@dataclass(frozen=True)
class Draft:
    """The hidden folder ``work`` that becomes ``final`` by one rename."""

    work: Path
    final: Path

    @staticmethod
    def of(final: Path) -> Draft:
        """One that nobody else writes to."""
        return Draft(final.parent / f"{SAVING}{final.name}-{uuid.uuid4().hex[:8]}", final)

    def begin(self, write: Callable[[Path], None]) -> None:
        """Make the folder, of what ``write(folder)`` writes."""
        self.work.mkdir(parents=True)
        write(self.work)

    def entries(self, mine: Callable[[str], bool]) -> Entries:
        """Sync the files that are ``mine`` by their names, and say what they are."""
        files = {
            p.relative_to(self.work).as_posix(): p for p in self.work.rglob("*") if p.is_file()
        }
        for path in files.values():
            _sync(path)
        return {name: _entry(files[name]) for name in sorted(files) if mine(name)}

    def publish(self, step: int, entries: Entries) -> None:
        """List ``entries`` in the manifest, written last, and give the folder its name."""
        for path in (path for path in self.work.rglob("*") if path.is_dir()):
            _sync(path)
        manifest = self.work / MANIFEST
        content = documents.sealed({"format": FORMAT, "step": step, "files": entries})
        manifest.write_text(_manifest_text(content))
        _sync(manifest)
        _sync(self.work)
        os.rename(self.work, self.final)
        _sync(self.final.parent)

    @contextmanager
    def or_nothing(self) -> Iterator[None]:
        """Leave nothing behind of what fails inside."""
        try:
            yield
        except BaseException:
            shutil.rmtree(self.work, ignore_errors=True)
            raise


def _manifest_text(sealed: Mapping[str, Any]) -> str:
    """The only way to write it, so that no byte of a manifest can change unnoticed."""
    return json.dumps(sealed, sort_keys=True, indent=1) + "\n"


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "size": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(folder: Path) -> None:
    """Raise CheckpointError, naming the file, unless ``folder`` is exactly what was saved.

    This is the one door to folders of weights: after it, nothing that could be read as part of
    the model is there but what the manifest lists, byte for byte. Cards, pictures, licences and
    hidden files may lie beside it.
    """
    entries = _manifest(folder)["files"]
    for name in _held(folder):
        if name not in entries:
            raise CheckpointError(
                f"{folder} holds {name}, which its manifest does not vouch for: if it is yours, "
                "move it elsewhere"
            )
    for name, entry in entries.items():
        path = folder / name
        if not os.path.isfile(path):  # Path.is_file raises for names that no file can have
            raise CheckpointError(f"{path} is missing")
        try:
            size = path.stat().st_size
            same = size == entry["size"] and _entry(path)["sha256"] == entry["sha256"]
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {files.why(error)}") from error
        if size != entry["size"]:
            raise CheckpointError(f"{path} has {size} bytes, and was saved with {entry['size']}")
        if not same:
            raise CheckpointError(f"{path} has been altered: its sha256 is not the saved one")


def _held(folder: Path) -> Iterator[str]:
    """What lies in ``folder`` and could be read as part of a model, as relative paths."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        beside = path.suffix.lower() in _DOCUMENTS or path.stem.lower() in ("license", "licence")
        hidden = any(part.startswith(".") for part in inside.parts)
        if not (beside or hidden or path.is_dir() or inside.as_posix() == MANIFEST):
            yield inside.as_posix()


def listed(folder: Path) -> frozenset[str]:
    """The files that the manifest of ``folder`` vouches for, as relative paths."""
    return frozenset(_manifest(folder)["files"])


def saved_step(folder: Path) -> int:
    """The optimiser step that the checkpoint ``folder`` was saved at, by its manifest."""
    return int(_manifest(folder)["step"])


class _Entry(documents.Shape):
    size: int = Field(ge=0)
    sha256: str


class _Manifest(documents.Shape):
    format: int
    step: int = Field(ge=0)
    files: dict[str, _Entry]


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint {folder}")
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: the checkpoint is not complete")
    try:
        text = files.read_bytes(path).decode()
        content: dict[str, Any] = documents.parse(text)
        entries = documents.shaped(content, _Manifest).files
        intact = documents.intact(content) and text == _manifest_text(content)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {files.why(error)}") from error
    strays = [name for name in entries if not _inside(name)]
    if strays:
        raise CheckpointError(f"{path} lists {files.quoted(strays[0])}, which is no file inside it")
    if not intact or not entries:
        raise CheckpointError(f"{path} has been altered: its sha256 is not the saved one")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path} is of format {content['format']}; this dlmkit reads {FORMAT}"
        )
    if content["step"] != step_of(folder) and step_of(folder) is not None:
        raise CheckpointError(f"{folder} holds step {content['step']}: it has been renamed")
    return content


def _inside(name: str) -> bool:
    """Whether ``name`` is a relative path that stays where it is read from."""
    windows = PureWindowsPath(name)  # knows both kinds of separator, and drives
    return not (windows.anchor or ".." in windows.parts or name in ("", "."))


def whole_ones(parent: Path, before: int | None = None) -> Iterator[Path]:
    """The checkpoints in ``parent`` that verify, newest first, of steps below ``before``."""
    for path in reversed(checkpoints(parent)):
        if before is not None and (step_of(path) or 0) >= before:
            continue
        try:
            verify(path)
        except CheckpointError:
            continue
        yield path


def find(reference: Path) -> Path:
    """The checkpoint that a path means: itself, or the newest one of a run; verified.

    Raises CheckpointError if it is damaged, naming the file and offering the newest earlier
    checkpoint that is whole, and if there is none at all.
    """
    inside = reference / "checkpoints" if (reference / "checkpoints").is_dir() else reference
    saved = checkpoints(inside)
    folder = saved[-1] if saved else reference
    if not saved and not (reference / MANIFEST).exists() and step_of(reference) is None:
        runs = sorted(path.parent.name for path in reference.glob("*/checkpoints"))
        named = f"; of the runs in it ({', '.join(runs[:8])}), name one" if runs else ""
        raise CheckpointError(f"{reference} holds no checkpoint{named}")
    try:
        verify(folder)
    except CheckpointError as error:
        earlier = next(whole_ones(folder.parent, step_of(folder)), None)
        offer = (
            f"the newest earlier checkpoint that is whole is {earlier}"
            if earlier
            else ("no earlier checkpoint beside it is whole")
        )
        raise CheckpointError(f"{error}; {offer}") from error
    return folder


def remove(folder: Path) -> None:
    """Delete a checkpoint. It loses its name first, so that no half of one is ever found."""
    doomed = folder.with_name(f"{_REMOVING}{folder.name}-{uuid.uuid4().hex[:8]}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint so that it is no longer found, and keep its bytes."""
    aside = folder.with_name(f"{_DAMAGED}{folder.name}-{uuid.uuid4().hex[:8]}")
    os.rename(folder, aside)
    return aside


def prune(parent: Path, keep_last: int, keep: Collection[int]) -> None:
    """Delete all checkpoints but the newest ``keep_last`` and those of the steps ``keep``."""
    for path in checkpoints(parent)[:-keep_last]:
        if step_of(path) not in keep:
            remove(path)


def sweep(parent: Path) -> None:
    """Delete what killed saves and removals left behind."""
    for pattern in (f"{SAVING}*", f"{_REMOVING}*"):
        for path in parent.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)

"""The commit of a checkout, read from its files.

git itself is not asked: it obeys the ``.git/config`` of the folder, which may name programs
(``core.fsmonitor``, filters, hooks), and a folder may have been packed by a stranger. Whether
files differ from the commit cannot be known without them, and is not said.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from dlmkit import files

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LINKS = 5
_PACKED = 64 * files.MIB


def commit_of(folder: Path) -> str | None:
    """The commit that is checked out where ``folder`` lies; None outside of a checkout, and in
    one that keeps its refs in a way that is not known here."""
    folder = folder.absolute()
    for place in (folder, *folder.parents):
        if (git := _git_folder(place / ".git")) is not None:
            return _head(git)
    return None


def _git_folder(path: Path) -> Path | None:
    """``path`` itself, or the folder that it names if it is a file, as in worktrees."""
    if path.is_dir():
        return path if (path / "HEAD").exists() else None
    name = _line(path)
    return path.parent / name.removeprefix("gitdir: ") if name.startswith("gitdir: ") else None


def _head(git: Path) -> str | None:
    common = git / (_line(git / "commondir") or ".")
    value = _line(git / "HEAD")
    for _ in range(_LINKS):
        if _HASH.fullmatch(value):
            return value
        name = value.removeprefix("ref: ")
        if name == value or ".." in PurePosixPath(name).parts or not name.startswith("refs/"):
            return None
        value = _line(git / name) or _line(common / name) or _packed(common, name)
    return None


def _packed(common: Path, name: str) -> str:
    for line in _text(common / "packed-refs", _PACKED).splitlines():
        value, _, ref = line.partition(" ")
        if ref == name:
            return value
    return ""


def _line(path: Path) -> str:
    """The only line of a small file; empty if there is no such file."""
    return _text(path, 4096).rstrip("\n")


def _text(path: Path, limit: int) -> str:
    try:
        return files.read_text(path, limit)
    except (OSError, ValueError):
        return ""

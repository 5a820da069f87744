"""Plugins that are one Python file each: those that an option, a call or the environment names.

Nothing looks for such files. ``mine.py`` becomes the module ``dlmkit.registry.single.file_mine``:
a private name takes nobody's place and, unlike that of a module without a finder, can be imported
again by a child process that inherits the environment, which is how a worker unpickles options.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from dlmkit import files
from dlmkit.errors import UsageError

FILES = "DLMKIT_PLUGIN_FILES"
"""Environment variable: paths of the files that are named, as ``PATH`` holds folders."""

__path__: list[str] = []  # a module that has one may have modules under it

_PREFIX = f"{__name__}.file_"  # an import sets its name here: "file_re" leaves ``re`` alone
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


@dataclass(frozen=True, eq=False)
class File:
    """One file as it was when it was named, which is what runs, whatever becomes of it since."""

    path: Path
    content: bytes

    @property
    def name(self) -> str:
        """The plugin's name: that of the file without ``.py``."""
        return self.path.stem

    @property
    def module(self) -> str:
        """What it is imported as."""
        return f"{_PREFIX}{self.name}"

    @cached_property
    def sha256(self) -> str:
        import hashlib  # which no command needs that names no file

        return hashlib.sha256(self.content).hexdigest()


_read: dict[Path, File] = {}


def named() -> list[File]:
    """The files that are named, in that order. Raises UsageError if one cannot be a plugin."""
    words = filter(None, os.environ.get(FILES, "").split(os.pathsep))
    by_name: dict[str, File] = {}
    for path in dict.fromkeys(Path(os.path.abspath(word)) for word in words):
        file = _read.get(path) or _read.setdefault(path, _file(path))
        other = by_name.setdefault(file.name, file)
        if other is not file:
            raise UsageError(
                f"{other.path} and {file.path} are both plugin {file.name!r}: rename one of them"
            )
    _drop_others(by_name.values())
    return list(by_name.values())


def name(path: str | Path) -> File:
    """Name the file ``path``, as it now is, for this process and those that it starts.

    Raises UsageError, and names nothing, if it cannot be a plugin.
    """
    before, place = os.environ.get(FILES), Path(os.path.abspath(path))
    file = _file(place)
    if os.pathsep in str(place):
        raise UsageError(f"no plugin can be named at {place}: {FILES} separates by {os.pathsep!r}")
    _read[place] = file
    os.environ[FILES] = os.pathsep.join(filter(None, (before, str(place))))
    try:
        named()
    except UsageError:
        restore(before)
        raise
    return file


def restore(before: str | None) -> None:
    """Name what ``before``, an earlier value of :data:`FILES`, names, and nothing else."""
    os.environ.pop(FILES, None)
    if before is not None:
        os.environ[FILES] = before


def _file(path: Path) -> File:
    try:
        content = files.read_bytes(path)
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"no plugin can be read from {path}: {why}") from error
    if path.suffix != ".py":
        raise UsageError(f"{path} is no plugin: the name of a Python file ends in .py")
    if not _NAME.fullmatch(path.stem):
        raise UsageError(
            f"{path} is no plugin: the name of its file is the plugin's, so it must be letters, "
            "digits and underscores, and begin with a letter: rename it"
        )
    return File(path, content)


def _drop_others(kept: Collection[File]) -> None:
    """Forget what ran from files that are named no longer, or from what a file was before."""
    for name, module in list[tuple[str, Any]](sys.modules.items()):
        if name.startswith(_PREFIX) and module.__loader__.file not in kept:
            del sys.modules[name]


class _Loader(SourceFileLoader):
    """Runs what was read when the file was named, and keeps no compiled copy beside it."""

    def __init__(self, file: File) -> None:
        super().__init__(file.module, str(file.path))
        self.file = file

    def get_data(self, path: Any) -> bytes:
        return self.file.content

    def path_stats(self, path: Any) -> Any:
        raise OSError  # how a loader says that it has nothing compiled


class _Finder(MetaPathFinder):
    """Finds the files of :func:`named`, and nothing else."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        for file in named() if fullname.startswith(_PREFIX) else ():
            if file.module == fullname:
                return spec_from_file_location(fullname, file.path, loader=_Loader(file))
        return None


sys.meta_path.append(_Finder())

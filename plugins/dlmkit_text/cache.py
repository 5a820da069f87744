"""Folders that one process builds for all, kept under a hash of all that they depend on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dlmkit import folders
from dlmkit.errors import DataError


def built(key: str, whole: Callable[[Path], bool], build: Callable[[Path], None]) -> Path:
    """The folder ``key`` of the cache; unless it is there and ``whole``, ``build`` fills it.

    One process builds while others wait for it, and it publishes by one rename. Raises DataError
    if the folder cannot be written; nothing is kept of one that was not finished.
    """
    folder = folders.cache() / key
    if folder.is_dir() and whole(folder):
        return folder
    try:
        folders.cache().mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            if not (folder.is_dir() and whole(folder)):
                _fill(folder, build)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error.strerror or error}; free some space there or "
            "name another folder with the variable DLMKIT_CACHE. Nothing was kept of it"
        ) from error
    return folder


def _fill(folder: Path, build: Callable[[Path], None]) -> None:
    """Only under the lock: the partial folder may be another process's until then."""
    partial = folder.with_suffix(".partial")
    for old in (partial, folder):  # of a process that was killed; damaged
        shutil.rmtree(old, ignore_errors=True)
    try:
        partial.mkdir()
        build(partial)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among the processes of this machine, and of others where the file system can lock."""
    with path.open("w") as file:
        try:
            import fcntl
        except ImportError:  # not on this platform
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

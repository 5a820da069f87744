"""What is built once and kept, keyed by the hash of everything it depends on.

Corpora that fit in memory are single files. What is larger, or made by one process for many, is a
folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dlmkit import folders
from dlmkit.errors import DataError

Arrays = dict[str, NDArray[np.generic]]


def _checksum(arrays: Mapping[str, NDArray[np.generic]], note: str) -> str:
    total = hashlib.blake2b(note.encode(), digest_size=16)
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


def load(key: str) -> tuple[Arrays, str] | None:
    """The arrays and the note stored under ``key``; None if absent, truncated or altered."""
    path = folders.cache() / f"{key}.safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return None
    note = metadata.get("note", "")
    return (arrays, note) if metadata.get("checksum") == _checksum(arrays, note) else None


def store(key: str, arrays: Arrays, note: str) -> None:
    """Publish by one rename. A cache that cannot be written is not an error: nothing is kept."""
    try:
        folders.cache().mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folders.cache(), suffix=".partial")
    except OSError:
        return
    os.close(handle)
    try:
        save_file(arrays, name, {"note": note, "checksum": _checksum(arrays, note)})
        os.replace(name, folders.cache() / f"{key}.safetensors")
    except OSError:
        Path(name).unlink(missing_ok=True)


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

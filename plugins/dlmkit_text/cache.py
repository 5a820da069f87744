"""A folder of built corpora, keyed by the hash of everything they depend on."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dlmkit import folders

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

"""Names of files and folders as users write them, and folders outside of a run."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

MANIFEST, RECIPE = "manifest.json", "recipe.yaml"
"""In a folder of weights: what else belongs to it, and how its model is built."""


def expanded(name: str | Path) -> Path:
    """``name`` with ``~`` as the home folder; of a user that nobody knows it stays as it is.

    Whether something is there, ask ``os.path.exists`` and its kin: unlike ``Path``'s methods they
    answer for names that no file can have (too long, say) too.
    """
    return Path(os.path.expanduser(name))


@contextmanager
def at_work(parent: Path, mark: str) -> Iterator[None]:
    """While this holds, nobody takes unfinished folders out of ``parent``, which is made.

    What killed processes left there, under names that begin with ``mark``, is removed first, if
    no process is at work in it. Nothing is locked where the file system has no locks; then nothing
    is removed either. Raises OSError if ``parent`` cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            import fcntl

            descriptor = os.open(parent, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            with suppress(BlockingIOError):  # somebody is at work
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for left in parent.glob(f"{glob.escape(mark)}*"):
                    shutil.rmtree(left, ignore_errors=True)
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # many may work at once, and none sweeps
        except (ImportError, OSError):
            pass
        yield


def cache() -> Path:
    """Where built corpora are kept: ``$DLMKIT_CACHE``, or ``~/.cache/dlmkit``."""
    return Path(os.environ.get("DLMKIT_CACHE") or Path.home() / ".cache" / "dlmkit")


def hub() -> Path:
    """Where datasets and tokenizers of the hub are kept: ``$HF_HOME``, or its default."""
    return Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")

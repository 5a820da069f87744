"""Names of files and folders as users write them, and folders outside of a run."""

from __future__ import annotations

import os
from pathlib import Path

MANIFEST, RECIPE = "manifest.json", "recipe.yaml"
"""In a folder of weights: what else belongs to it, and how its model is built."""


def expanded(name: str | Path) -> Path:
    """``name`` with ``~`` as the home folder; of a user that nobody knows it stays as it is.

    Whether something is there, ask ``os.path.exists`` and its kin: unlike ``Path``'s methods they
    answer for names that no file can have (too long, say) too.
    """
    return Path(os.path.expanduser(name))


def cache() -> Path:
    """Where built corpora are kept: ``$DLMKIT_CACHE``, or ``~/.cache/dlmkit``."""
    return Path(os.environ.get("DLMKIT_CACHE") or Path.home() / ".cache" / "dlmkit")


def hub() -> Path:
    """Where datasets and tokenizers of the hub are kept: ``$HF_HOME``, or its default."""
    return Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")

"""Folders outside of a run."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """Where built corpora are kept: ``$DLMKIT_CACHE``, or ``~/.cache/dlmkit``."""
    return Path(os.environ.get("DLMKIT_CACHE") or Path.home() / ".cache" / "dlmkit")


def hub() -> Path:
    """Where datasets and tokenizers of the hub are kept: ``$HF_HOME``, or its default."""
    return Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")

"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
KEPT, LARGEST = 1 << 30, 32 << 20
"""Bytes kept at the top of the heap, and the largest block taken from it (glibc's own limit)."""


def keep_freed() -> bool:
    """Keep freed memory for the next allocation, and say whether this C library does.

    By default glibc gives a step's activations back to the system, which zeroes the same pages
    again, one fault each, at the next step. For programs, not libraries: it holds for the whole
    process, whose size stays at its peak. MALLOC_TRIM_THRESHOLD_ in the environment goes first.
    """
    if platform.libc_ver()[0] != "glibc" or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return False
    library = ctypes.CDLL(None)
    settings = ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, KEPT))
    return all(library.mallopt(name, value) == 1 for name, value in settings)

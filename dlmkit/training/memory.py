"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
KEPT, LARGEST = 1 << 30, (1 << 30, 32 << 20)
"""Bytes kept at the top of the heap, and the largest block taken from it, where glibc allows it
(older versions: 32 MiB)."""
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
"""Variables by which a user chooses: then nothing is changed here."""


def keep_freed() -> bool:
    """Keep freed memory for the next allocation, and say whether this C library does.

    By default glibc gives a step's activations back to the system, which zeroes the same pages
    again, one fault each, at the next step: 4 to 8 % of a training step on the CPU. For programs,
    not libraries: it holds for the whole process, whose size stays at its peak.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in CHOSEN):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    taken = any(mallopt(MMAP_THRESHOLD, size) == 1 for size in LARGEST)
    return taken and mallopt(TRIM_THRESHOLD, KEPT) == 1

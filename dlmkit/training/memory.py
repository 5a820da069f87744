"""Memory that the C library would hand back to the system and fault in again every step."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGEST = (1 << 30, 1 << 25)  # bytes; older versions take 32 MiB at most


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed, blocks of up to 1 GiB; False where that is not glibc's.

    A step frees and takes the same activations again. By default glibc returns large blocks to
    the kernel, which clears them page by page at the next use: 4 to 8 % of a training step on
    the CPU. The peak stays as it is; what stays allocated between steps is the peak.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    kept = any(set_option(_M_MMAP_THRESHOLD, size) for size in _LARGEST)
    return kept and bool(set_option(_M_TRIM_THRESHOLD, _LARGEST[0]))

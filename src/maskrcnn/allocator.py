"""How the C library treats memory that was freed. Where it is another one than glibc nothing is done."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Freed memory is handed out again, instead of going back to the system in large pieces.

    The network's maps are large: each layer would ask for fresh pages, and the system clears every one of them, which
    is a tenth of the time of a prediction on a CPU. The process then keeps its peak until it ends, so this is said by
    programs and not by the library: every command of `maskrcnn` calls it first.
    """
    _set(mmap_threshold=1 << 30, trim_threshold=(1 << 31) - 1)


def return_freed_memory() -> None:
    """Freed memory goes back to the system at once, but for pieces of less than 64 KB: the process then holds what it
    asked for, to a few MB, and not what was held back by chance."""
    _set(mmap_threshold=1 << 16, trim_threshold=1 << 16)


def _set(mmap_threshold: int, trim_threshold: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, mmap_threshold)
        mallopt(_M_TRIM_THRESHOLD, trim_threshold)

"""Settings of glibc's memory allocator. With another C library, these functions do nothing."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Makes the process reuse freed memory instead of returning large pieces to the system.

    Feature maps are large. Without this, each layer gets new pages, which the system must clear: a tenth of the time of
    a prediction on a CPU. The process then keeps its peak memory until it ends, or until `trim`. So the library never
    calls this function, but every command of `maskrcnn` calls it first.
    """
    _set(mmap_threshold=1 << 30, trim_threshold=(1 << 31) - 1)


def return_freed_memory() -> None:
    """Makes the process return freed memory to the system at once, except pieces of less than 64 KB.

    The memory of the process then equals what it uses, to a few MB.
    """
    _set(mmap_threshold=1 << 16, trim_threshold=1 << 16)


def trim() -> None:
    """Returns to the system the pages that hold nothing but freed memory, wherever they lie: about 20 ms.

    Tensors of ever other sizes leave gaps between them. Without this, a prediction of 2,209 tiles of 520 pixels with
    some 80 objects each grew by 0.4 MB a tile.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _set(mmap_threshold: int, trim_threshold: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, mmap_threshold)
        mallopt(_M_TRIM_THRESHOLD, trim_threshold)

"""The text of a large JSON file, which is read in pieces so that memory never holds all of its values."""

from __future__ import annotations

import codecs
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from msgspec import Raw

from maskrcnn.files.json_file import GZIP, expanded

Text = bytes | mmap.mmap

_CHECKED_AT_ONCE = 1 << 20  # bytes


def read_text(path: Path) -> Text:
    """The text of a JSON file, which may be compressed with gzip.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not in UTF-8, or broken gzip.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        compressed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if compressed or size == 0:
            text: Text = expanded(file.read())
        else:
            text = mmap.mmap(-1, size)  # memory that `groups` can give back, unlike that of bytes
            file.readinto(text)
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")  # as `json` reads bytes
    view = memoryview(text)
    for start in range(0, len(text), _CHECKED_AT_ONCE):
        decoder.decode(view[start : start + _CHECKED_AT_ONCE])
    return text


def groups(pieces: list[Raw], text: Text, at_once: int) -> Iterator[Sequence[Raw]]:
    """Groups of `at_once` pieces of a text in order. The text up to the end of a group is gone after its turn, and all
    pieces in the end."""
    start = np.frombuffer(text, dtype=np.uint8).ctypes.data if text else 0
    for first in range(0, len(pieces), at_once):
        group = pieces[first : first + at_once]
        yield group
        if isinstance(text, mmap.mmap) and hasattr(text, "madvise"):
            end = np.frombuffer(group[-1], dtype=np.uint8).ctypes.data - start
            text.madvise(mmap.MADV_DONTNEED, 0, end - end % mmap.PAGESIZE)
    pieces.clear()

"""Atomic writing: a file is replaced completely or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to, which replaces `path` when the block succeeds.

    The old file does not change if the process is killed, the block raises, or the disk is full. Missing parent folders
    are created. If `path` is a symbolic link, its target is replaced.

    The temporary name starts with a dot and keeps the suffix, from which some writers derive the format.

    Raises:
        OSError: the folder cannot be written, or the block wrote no file.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        yield temporary
        # Sync before renaming, so that a power cut cannot leave an empty file under the final name.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)

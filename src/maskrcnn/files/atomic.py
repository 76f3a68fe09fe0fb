"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path` for writing; it takes the place of `path` when the block succeeds.

    The old file stays as it was when the process is killed in the middle, when the block raises, or when the disk is
    full. Missing parent folders are made. A symbolic link stays one: the file that it names is replaced.

    The temporary name starts with a dot and keeps the suffix, from which some writers derive the format.

    Raises:
        OSError: the folder cannot be written, or nothing was written.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        yield temporary
        # The data is on disk before it gets its name: after a power cut the name must not lead to an empty file.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)

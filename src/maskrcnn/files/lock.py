"""A lock on a folder, so that two processes do not write the same files."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from maskrcnn.errors import TrainingError

if sys.platform != "win32":
    import fcntl

LOCK = "run.lock"
PATIENCE = 5.0  # seconds; the loader processes of a killed run hold its lock until they notice its end


@contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Holds the lock of a folder, which is created if it is missing. The lock file names the process and its host.

    Processes that share a folder hold locks of different names.

    The system frees the lock of a process that ends in any way, so a file that a killed process has left does no harm.
    A file system without locks does not refuse a second process.

    Raises:
        TrainingError: another process holds the lock.
        OSError: the folder cannot be created or written.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    file = _acquire(path)
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        if created:
            with suppress(OSError):  # it holds files
                folder.rmdir()


def _acquire(path: Path) -> TextIO:
    end = time.monotonic() + PATIENCE
    while True:
        file = path.open("a+")
        if _lock(file) and _is_at(file, path):
            return file
        file.seek(0)
        holder = file.read()
        file.close()
        if time.monotonic() > end:
            raise TrainingError(
                f"{path.parent}: another run is going on in this folder ({holder or 'process unknown'}); "
                "wait for its end, or choose another --out"
            )
        time.sleep(0.1)


def _lock(file: TextIO) -> bool:
    if sys.platform == "win32":  # a folder is not locked there
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether the file still has its name; its last holder may have removed it before the lock was free."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False

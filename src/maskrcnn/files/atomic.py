"""Atomic writing: a file is replaced completely or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskrcnn.errors import ConfigError

_RANDOM_BYTES = 4  # in the name of a temporary file
_TEMPORARY = f".*.{'[0-9a-f]' * 2 * _RANDOM_BYTES}.tmp*"


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to, which replaces `path` when the block succeeds.

    The old file does not change if the process is killed, the block raises, or the disk is full. Missing parent folders
    are created. If `path` is a symbolic link, its target is replaced. The file gets the permissions of any new file,
    whatever its writer chose.

    The temporary name starts with a dot and keeps the suffix, from which some writers derive the format.

    Raises:
        OSError: the folder cannot be written, or the block wrote no file.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(_RANDOM_BYTES)}.tmp{target.suffix}")
    permissions = _permissions_of_new_files(temporary)
    try:
        yield temporary
        os.chmod(temporary, permissions)
        # Sync before renaming, so that a power cut cannot leave an empty file under the final name.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _permissions_of_new_files(free: Path) -> int:
    """The permissions that the process gives to new files, found with a file at the path `free`."""
    with open(free, "x") as file:
        permissions = os.fstat(file.fileno()).st_mode & 0o777
    free.unlink()
    return permissions


def remove_temporaries(folder: Path) -> None:
    """Removes the temporary files that killed processes have left in a folder, in which no other process may write."""
    for path in folder.glob(_TEMPORARY):
        path.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Checks before the work that files can be written to a folder, which may be missing.

    Raises:
        ConfigError: the path or a part of it is a file, or the user may not write there.
    """
    place = path
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ConfigError(f"{path}: expected a folder to write to, found a file at {place}; choose another path")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{path}: no permission to write in {place}; choose another folder")


def check_file(path: Path) -> None:
    """Checks before the work that a file can be written, in a folder that may be missing; raises as `check_folder`."""
    if path.is_dir():
        raise ConfigError(f"{path}: expected a file to write, found a folder; add the name of the file")
    check_folder(path.resolve().parent)

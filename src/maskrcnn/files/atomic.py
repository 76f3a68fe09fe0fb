"""Atomic writing: a file is replaced completely or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from maskrcnn.errors import ConfigError

_PAGES = (".html", ".htm")
_RANDOM_BYTES = 4  # in the name of a temporary file
_OF_SAFETENSORS = f".tmp{'[0-9A-Za-z]' * 6}"  # what safetensors writes before it gives the file its name


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to, which replaces `path` when the block succeeds.

    The old file does not change if the process is killed, the block raises, or the disk is full. Missing parent folders
    are created. If `path` is a symbolic link, its target is replaced. The file gets the permissions of any new file,
    whatever its writer chose.

    The temporary name starts with a dot and keeps the suffix, from which some writers derive the format.

    Raises:
        OSError: the folder cannot be written, or the block wrote no file. It names the file.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    permissions = _permissions_of_new_files(temporary)
    try:
        yield temporary
        os.chmod(temporary, permissions)
        # Sync before renaming, so that a power cut cannot leave an empty file under the final name.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.filename is None:  # as for a full disk
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    """A path beside `target` that no file has."""
    return target.with_name(f".{target.stem}.{secrets.token_hex(_RANDOM_BYTES)}.tmp{target.suffix}")


def _permissions_of_new_files(free: Path) -> int:
    """The permissions that the process gives to new files, found with a file at the path `free`."""
    with open(free, "x") as file:
        permissions = os.fstat(file.fileno()).st_mode & 0o777
    free.unlink()
    return permissions


def remove_temporaries(folder: Path, stem: str = "*") -> None:
    """Removes the temporary files that killed processes have left in a folder. No other process may write them.

    Args:
        stem: that of the files to be written; default: all files of the folder.
    """
    names = [f".{stem}.{'[0-9a-f]' * 2 * _RANDOM_BYTES}.tmp*", *([_OF_SAFETENSORS] if stem == "*" else [])]
    for path in [path for name in names for path in folder.glob(name)]:
        path.unlink(missing_ok=True)


def check_folder(path: Path, *sources: Path | None) -> None:
    """Checks before the work that files can be written to a folder, which may be missing. It leaves nothing behind.

    Args:
        sources: what the command reads. In a folder among them, the new files would be read the next time.

    Raises:
        ConfigError: the path is the address of an object store, it or a part of it is a file, it lies in a folder that
            is read, or the system refuses a file there.
    """
    for source in sources:
        if source is not None and source.is_dir() and path.resolve().is_relative_to(source.resolve()):
            raise ConfigError(
                f"{path}: expected a folder outside of {source}, which is read and would hold the new files, too; "
                "choose another folder"
            )
    missing, place = [], path
    while not os.path.lexists(place):
        missing.append(place)
        place = place.parent
    if any(folder.name.endswith(":") for folder in missing):
        raise ConfigError(f"{path}: expected a folder on a disk, found an address; copy the files there afterwards")
    if not place.is_dir():
        raise ConfigError(f"{path}: expected a folder to write to, found a file at {place}; choose another path")
    try:
        # Tried rather than asked: permissions do not show a name that is too long, a read-only disk, or /proc.
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no file can be written there ({_reason(error)}); choose another folder") from None
    finally:
        for folder in missing:
            with suppress(OSError, ValueError):  # it was not made, or another process has used it meanwhile
                folder.rmdir()


def check_file(path: Path | str, *sources: Path | str | None) -> None:
    """Checks before the work that a file can be written, in a folder that may be missing.

    Args:
        sources: the files and folders that the command reads. None of their files must be overwritten; a page may be,
            because no command reads one, and a report beside the data is written again and again.

    Raises:
        ConfigError: the path is a folder or a file that is read, or as for `check_folder`.
    """
    if os.path.isdir(path):
        raise ConfigError(f"{path}: expected a file to write, found a folder; add the name of the file")
    target = Path(path)
    if os.path.isfile(path) and any(_is_read(target, Path(source)) for source in sources if source is not None):
        raise ConfigError(f"{path}: expected a file to write, found one that is read; choose another path")
    try:
        with suppress(FileNotFoundError):
            _temporary(target).stat()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be written ({_reason(error)}); choose another path") from None
    check_folder(target.resolve().parent)


def _is_read(file: Path, source: Path) -> bool:
    """Whether a file is a source, or lies in a folder that is one and is no page."""
    if source.is_dir():
        return source.resolve() in file.resolve().parents and file.suffix.lower() not in _PAGES
    return source.is_file() and source.samefile(file)


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)

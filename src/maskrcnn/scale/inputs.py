"""The images of a large prediction: folders, globs and lists, on disks and in object stores."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from maskrcnn.errors import ConfigError, DataError, ImageError, MissingPackageError
from maskrcnn.files.images import IMAGE_SUFFIXES, LIST_SUFFIXES, image_files

COLUMN = "path"  # of lists


def is_address(path: str) -> bool:
    """Whether this is an address that fsspec opens, such as `s3://bucket/key`, and not a path."""
    return "://" in path


def listed_images(inputs: Sequence[str]) -> tuple[str, ...]:
    """The images of all inputs by name, each once.

    Args:
        inputs: image files, folders and globs, as paths or as addresses of fsspec, and lists of images: text with one
            path a line, CSV and Parquet with a column `path`.

    Raises:
        ImageError: an input matches nothing.
        DataError: a list cannot be read, or is empty.
        ConfigError: an object store cannot be reached.
        MissingPackageError: the package for this kind of object store is missing.
    """
    found: set[str] = set()
    for item in inputs:
        if PurePosixPath(item).suffix.lower() in LIST_SUFFIXES and not os.path.isdir(item):
            found.update(_in_list(item))
        elif is_address(item):
            found.update(_at_address(item))
        else:
            found.update(map(str, image_files([item])))
    for path in found:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ImageError(f"{path!r}: expected a name in UTF-8, which Parquet needs; rename the file") from None
    return tuple(sorted(found))


def read_address(address: str) -> bytes:
    """The content of a file in an object store.

    Raises:
        ImageError: there is no such file.
        ConfigError: the store cannot be reached, so that nothing is known of the file.
    """

    def read() -> bytes:
        with fsspec.open(address, "rb") as file:
            return bytes(file.read())

    try:
        return _asked(address, read)
    except (FileNotFoundError, IsADirectoryError):
        raise ImageError(f"{address}: expected an image, found nothing there") from None


def _asked(address: str, ask: Callable[[], Any]) -> Any:
    """What a store answers. Each kind of store raises errors of its own, which become one of ours."""
    try:
        return ask()
    except (FileNotFoundError, IsADirectoryError):
        raise
    except ImportError as error:
        raise MissingPackageError(f"{address}: its kind of store needs a package that is missing: {error}") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{address}: the store cannot be read ({reason})") from None


def _at_address(address: str) -> list[str]:
    head, link, around = address.partition("::")
    inside = link + around if "://" in head else ""  # zip://*.png::s3://bucket/a.zip: the archive of all names

    def ask() -> list[str]:
        store, root = fsspec.core.url_to_fs(address)
        if store.isdir(root):
            names = [name for name in store.find(root) if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
        else:
            names = [root] if store.exists(root) else [name for name in store.glob(root) if not store.isdir(name)]
        return [store.unstrip_protocol(name) + inside for name in names]

    try:
        found: list[str] = _asked(address, ask)
    except FileNotFoundError:
        found = []
    if not found:
        raise ImageError(f"{address}: expected an image, a folder of images or a glob, found no image there")
    return found


def _in_list(item: str) -> list[str]:
    """The paths in a list. Relative ones start at the working folder or, if the first is not there, at the list."""
    try:
        content = read_address(item) if is_address(item) else Path(item).read_bytes()
    except (ImageError, OSError) as error:
        raise DataError(f"{item}: expected a list of images, found none ({error})") from None
    paths = _paths(item, content)
    if not paths:
        raise DataError(f"{item}: expected a list of images, found an empty one")
    relative = next((path for path in paths if not is_address(path) and not os.path.isabs(path)), None)
    folder = os.path.dirname(item)
    if relative is None or is_address(item) or os.path.lexists(relative):
        return paths
    if not os.path.lexists(os.path.join(folder, relative)):
        return paths
    return [path if is_address(path) else os.path.join(folder, path) for path in paths]


def _paths(item: str, content: bytes) -> list[str]:
    """The paths in the content of a list, of the kind that its suffix names."""
    suffix = PurePosixPath(item).suffix.lower()
    try:
        if suffix == ".parquet":
            table = pq.read_table(io.BytesIO(content))
            names, values = table.column_names, table.column(COLUMN).to_pylist() if COLUMN in table.column_names else []
        elif suffix == ".csv":
            rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
            names, values = list(rows.fieldnames or ()), [row.get(COLUMN) for row in rows]
        else:
            # Not `splitlines`, which also divides at characters that names may have, such as U+2028.
            lines = io.StringIO(content.decode("utf-8-sig"), newline=None)
            names, values = [COLUMN], [name for line in lines if (name := line.strip())]
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{item}: expected a list of images as {suffix[1:]} ({error}); write it again") from None
    if COLUMN not in names:
        raise DataError(f"{item}: expected a column {COLUMN!r}, found {', '.join(map(repr, names)) or 'none'}")
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str) or not value or "\0" in value:
            raise DataError(f"{item}: expected a path in row {number} of column {COLUMN!r}, found {value!r}")
    return values

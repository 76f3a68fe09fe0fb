"""The formats of data sets on disk. Each is one module; docs/architecture.md shows how to add one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from maskrcnn.data.formats import coco
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset


class Format(Protocol):
    """The interface of a format's module. A format that can be written also has `write(dataset, path)`."""

    name: str
    """Name in messages, such as "COCO JSON"."""

    def recognise(self, path: Path) -> bool:
        """Whether an existing file or folder looks like this format. It reads only the beginning of a file."""
        ...

    def read(self, path: Path, images: Path | None = None, *, strict: bool = False) -> Dataset:
        """Reads the data set with a `DatasetBuilder`; arguments and errors as for `read_dataset`."""
        ...


FORMATS: tuple[Format, ...] = (coco,)


def read_dataset(path: Path | str, images: Path | None = None, *, strict: bool = False) -> Dataset:
    """Reads a data set of any format.

    Args:
        path: the annotation file, or the folder that holds it.
        images: folder of the images; None for the default folder of the format.
        strict: raise at the first broken image or annotation, instead of leaving it out.

    Raises:
        DataError: the path does not exist, not exactly one format recognises it, or the data set cannot be used.
    """
    path = Path(path)
    known = ", ".join(format.name for format in FORMATS)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder, expected a data set ({known})")
    fitting = [format for format in FORMATS if format.recognise(path)]
    if len(fitting) != 1:
        found = " and ".join(format.name for format in fitting) or "none of them"
        raise DataError(
            f"{path}: expected a data set in one of the formats {known}, or a folder with one; found {found}"
        )
    return fitting[0].read(path, images, strict=strict)

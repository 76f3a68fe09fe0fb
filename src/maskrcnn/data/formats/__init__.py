"""The formats that a data set may have on disk. Each is one file; docs/architecture.md says how to add one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from maskrcnn.data.formats import coco
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset


class Format(Protocol):
    """What the module of a format offers. One that can be written also has `write(dataset, path)`."""

    name: str
    """For messages, as in "expected COCO JSON"."""

    def recognise(self, path: Path) -> bool:
        """Whether a file or folder that exists looks like this format; reads no more than the beginning of a file."""
        ...

    def read(self, path: Path, images: Path | None = None, *, strict: bool = False) -> Dataset:
        """The data set, built with `DatasetBuilder`; raises DataError where it cannot be used.

        Args:
            images: folder of the images; None for the place where the format keeps them.
            strict: raise at the first broken image or annotation.
        """
        ...


FORMATS: tuple[Format, ...] = (coco,)


def read_dataset(path: Path | str, images: Path | None = None, *, strict: bool = False) -> Dataset:
    """Reads a data set of any format.

    Args:
        path: the annotation file, or the folder that holds it.
        images: folder of the images; None for the place where the format keeps them.
        strict: refuse the data set at its first broken image or annotation, instead of leaving it out.

    Raises:
        DataError: there is nothing, no format or more than one fits, or the data set cannot be used.
    """
    path = Path(path)
    known = ", ".join(format.name for format in FORMATS)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder, expected a data set ({known})")
    fitting = [format for format in FORMATS if format.recognise(path)]
    if len(fitting) != 1:
        found = " and ".join(format.name for format in fitting) or "none of them"
        raise DataError(
            f"{path}: expected a data set of one of the formats {known}, or a folder with one; found {found}"
        )
    return fitting[0].read(path, images, strict=strict)

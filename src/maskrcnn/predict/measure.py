"""Measures objects: one row of a table each, by the names and definitions of scikit-image's `regionprops_table`."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskrcnn.errors import ConfigError, ImageError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.images import image_size
from maskrcnn.files.media.pixel_size import pixel_size
from maskrcnn.files.media.windows import Pixels
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE

MEASURES = (
    "area",
    "perimeter",
    "centroid-0",
    "centroid-1",
    "axis_major_length",
    "axis_minor_length",
    "eccentricity",
    "intensity_mean-0",
    "intensity_mean-1",
    "intensity_mean-2",
)
RGB = 3  # the number of channels of which `MEASURES` names the means
COLUMNS = ("file", "class", "score", "x1", "y1", "x2", "y2", *MEASURES)


@dataclass(frozen=True)
class Table:
    """A CSV of measured objects.

    Attributes:
        path: the file to write.
        pixel_size: side of a pixel in the unit of the table. Areas are in its square; boxes stay in pixels. With
            "file" the unit is the micrometre, and each file says the size of its pixels.
    """

    path: Path
    pixel_size: float | Literal["file"] = 1.0

    def __post_init__(self) -> None:
        if self.pixel_size != "file" and not (self.pixel_size > 0 and math.isfinite(self.pixel_size)):
            raise ConfigError(f"--pixel-size: expected more than 0, found {self.pixel_size}")

    def sizes(self, files: Sequence[Path]) -> list[float]:
        """The side of a pixel of each file. An image that cannot be opened gets one that nobody needs.

        Raises:
            ConfigError: a file does not say the size of its pixels.
            ImageError: the pixels of a file are not square.
        """
        if self.pixel_size != "file":
            return [self.pixel_size] * len(files)
        return [pixel_size(file) or _require_none(file) for file in files]


def _require_none(file: Path) -> float:
    """A size for an image that cannot be opened, which has no objects. Raises ConfigError if it can be opened."""
    try:
        image_size(file)
    except ImageError:
        return 1.0
    raise ConfigError(
        f"--pixel-size file: {file} does not say the size of its pixels (TIFF and PNG can); give the size as a number"
    )


def measured(image: Pixels, found: Instances, name: str, side: float) -> list[list[Any]]:
    """One row of `COLUMNS` for each object.

    Args:
        image: its pixels, of which only the parts with objects are read.
        found: the objects of that image.
        name: of the image.
        side: that of a pixel, in the unit of the lengths.

    Raises:
        ConfigError: the objects have no masks.
    """
    if found.masks is None:
        raise ConfigError("a table measures masks: expected a model with masks, found one without")
    rows: list[list[Any]] = []
    for i, category in enumerate(found.class_names):
        box = [round(float(edge), 3) for edge in found.boxes[i]]
        rows.append([name, category, float(found.scores[i]), *box, *measure(found.masks[i], image, side)])
    return rows


def measure(mask: RLE, image: Pixels, pixel_size: float = 1.0) -> list[float | None]:
    """The `MEASURES` of one object. An empty mask has an area and a perimeter of 0, and nothing else.

    Centroids are row and column, where whole numbers are centres of pixels. The axes are those of the ellipse with the
    same second moments.

    Args:
        mask: of the image.
        image: the pixels of the whole image; each of its channels gets a mean.
    """
    bitmap, (x, y) = mask.crop()
    rows, columns = np.nonzero(bitmap)
    if len(rows) == 0:
        return [0.0, 0.0, *[None] * (len(MEASURES) - 2 - RGB + image.shape[2])]
    height, width = bitmap.shape
    colours = image[y : y + height, x : x + width][rows, columns].mean(axis=0)
    variance_row, variance_column = rows.var(), columns.var()
    covariance = ((rows - rows.mean()) * (columns - columns.mean())).mean()
    middle = (variance_row + variance_column) / 2
    spread = math.hypot((variance_row - variance_column) / 2, covariance)
    longest, shortest = middle + spread, max(0.0, middle - spread)  # variances along the axes of the ellipse
    return [
        len(rows) * pixel_size**2,
        perimeter(bitmap) * pixel_size,
        float(y + rows.mean()) * pixel_size,
        float(x + columns.mean()) * pixel_size,
        4 * math.sqrt(longest) * pixel_size,
        4 * math.sqrt(shortest) * pixel_size,
        math.sqrt(1 - shortest / longest) if longest > 0 else 0.0,
        *colours.tolist(),
    ]


# What a border pixel adds to the perimeter, by its neighbours on the border: 10 for each at a corner, 2 for each at a
# side, 1 for itself (Benkrid and Crookes, Design and FPGA implementation of a perimeter estimator, 2000).
_PERIMETER = np.zeros(50)
_PERIMETER[[5, 7, 15, 17, 25, 27]] = 1
_PERIMETER[[21, 33]] = math.sqrt(2)
_PERIMETER[[13, 23]] = (1 + math.sqrt(2)) / 2


def perimeter(bitmap: np.ndarray) -> float:
    """The length of the line through the centres of the border pixels of an (h, w) bitmap, in pixels."""
    filled = np.pad(bitmap != 0, 2)
    inner = filled[1:-1, 1:-1] & filled[:-2, 1:-1] & filled[2:, 1:-1] & filled[1:-1, :-2] & filled[1:-1, 2:]
    border = np.pad((filled[1:-1, 1:-1] & ~inner)[1:-1, 1:-1], 1).astype(np.int64)
    sides = border[:-2, 1:-1] + border[2:, 1:-1] + border[1:-1, :-2] + border[1:-1, 2:]
    corners = border[:-2, :-2] + border[:-2, 2:] + border[2:, :-2] + border[2:, 2:]
    codes = border[1:-1, 1:-1] + 2 * sides + 10 * corners
    return float(_PERIMETER[codes].sum())


def write_table(rows: Sequence[Sequence[Any]], table: Table) -> None:
    """Writes the CSV. What an object does not have is an empty cell.

    Bytes of a file's name that are no UTF-8 are escaped as in predictions.json.
    """
    with (
        atomic_write(table.path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        channels = len(rows[0]) - len(COLUMNS) + RGB if rows else RGB
        writer.writerow([*COLUMNS[:-RGB], *(f"intensity_mean-{i}" for i in range(channels))])
        writer.writerows(rows)

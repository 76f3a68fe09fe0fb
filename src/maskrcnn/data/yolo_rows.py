"""The label files of YOLO segmentation: rows `class x y x y ...`, in fractions of the upright image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from maskrcnn.data.annotation import Size
from maskrcnn.data.writing import Holds, Lost, objects_to_write, shares
from maskrcnn.errors import DataError
from maskrcnn.ops.polygons import bridged, outline
from maskrcnn.structures.annotations import Annotations
from maskrcnn.structures.values import short

_OUTSIDE = 0.01  # of the image, by which tools place points beyond its border
_MOST_BYTES = 1 << 26  # of a label file


@dataclass
class Labels:
    """The content of a label file.

    Attributes:
        present: whether the file exists.
        objects: line, class and (n, 2) points in fractions of the image.
        boxes, doubles: lines with a box, and with what another line says, too.
        faults: what is wrong with the other lines.
    """

    present: bool = True
    objects: list[tuple[int, int, np.ndarray]] = field(default_factory=list)
    boxes: list[int] = field(default_factory=list)
    doubles: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_labels(path: Path) -> Labels:
    try:
        content = path.read_bytes()
    except OSError:
        return Labels(present=False)
    if len(content) > _MOST_BYTES:
        return Labels(
            faults=[f"{path.name}: expected a label file of at most {_MOST_BYTES} bytes, found {len(content)}"]
        )
    rows = [row.split() for row in content.decode("utf-8-sig", errors="replace").splitlines()]
    labels, seen = Labels(), set()
    for line, cells in enumerate(rows, start=1):
        if not cells:
            continue
        if tuple(cells) in seen:
            labels.doubles.append(line)
        elif len(cells) == 5:
            labels.boxes.append(line)
        else:
            try:
                labels.objects.append((line, *_row(cells)))
            except DataError as error:
                labels.faults.append(f"{path.name}: line {line}: {error}")
        seen.add(tuple(cells))
    return labels


def _row(cells: Sequence[str]) -> tuple[int, np.ndarray]:
    """The class and the (n, 2) points of a row, in fractions of the image."""
    try:
        numbers = np.array(cells, dtype=np.float64)
    except ValueError:
        raise DataError(f"expected a class and fractions of the image, found {short(' '.join(cells))}") from None
    if len(numbers) < 7 or len(numbers) % 2 == 0 or not np.isfinite(numbers).all() or numbers[0] != int(numbers[0]):
        raise DataError(f"expected a class and 3 or more points x y, found {len(numbers)} numbers")
    points = numbers[1:].reshape(-1, 2)
    if points.min() < -_OUTSIDE or points.max() > 1 + _OUTSIDE:
        raise DataError(f"expected fractions from 0 to 1, found {points.min():g} to {points.max():g}")
    return int(numbers[0]), points.clip(0, 1)


def rows_of(annotations: Annotations, holds: Holds, lost: Lost) -> list[str]:
    """The rows of a label file, each once."""
    numbers = objects_to_write(annotations, holds, lost)
    height, width = annotations.image_hw
    rows: dict[str, None] = {}
    for number, (bitmap, corner_xy) in zip(numbers, annotations.crops(numbers), strict=True):
        points = _single_polygon(annotations.polygons(number), annotations.image_hw)
        if points is None:
            rings = outline(bitmap)
            lost["{object has|objects have} parts or holes, joined by bridges that some tools draw"] += len(rings) > 1
            points = bridged(rings) + corner_xy
        numbers_of_row = " ".join(map(repr, shares(points, (width, height)).ravel().tolist()))
        row = f"{annotations.labels[number]} {numbers_of_row}"
        lost["{object repeats|objects repeat} another one"] += row in rows
        rows[row] = None
    return list(rows)


def _single_polygon(polygons: Sequence[np.ndarray], size: Size) -> np.ndarray | None:
    """The (n, 2) polygon of a mask, if it has only one, inside the image."""
    if len(polygons) != 1 or polygons[0].min() < 0 or (polygons[0] > size[::-1]).any():
        return None
    return polygons[0]

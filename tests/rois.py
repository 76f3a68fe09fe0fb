"""Regions of ImageJ as bytes, by the layout of its `ij.io.RoiEncoder`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

POLYGON, RECTANGLE, OVAL, LINE, FREEHAND, POINT = 0, 1, 2, 3, 7, 10
_HEADER = ">4shBxhhhhHffffhihhhhhhBBhii"


def roi(
    kind: int,
    box: Sequence[int],
    body: bytes = b"",
    *,
    count: int = 0,
    floats: Sequence[float] = (0, 0, 0, 0),
    paths: int = 0,
    subtype: int = 0,
    options: int = 0,
    position: int = 0,
    name: str = "",
) -> bytes:
    """A region.

    Args:
        box: left, top, right, bottom.
        body: what follows the header: coordinates, or a path.
    """
    left, top, right, bottom = box
    second = 64 + len(body) if name else 0
    colours = (0, 0, 0, 0)
    header = (b"Iout", 227, kind, top, left, bottom, right, count, *floats, 0, paths, *colours, subtype, options)
    content = struct.pack(_HEADER, *header, 0, 0, 0, position, second) + body
    if name:
        text = name.encode("utf-16-be")
        content += struct.pack(">4xiiiii", 0, 0, 0, second + 64, len(name)) + bytes(40) + text
    return content


def polygon_roi(points: Sequence[Sequence[int]], *, kind: int = POLYGON, **fields: Any) -> bytes:
    """A polygon with corners x, y in whole numbers."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    box = (min(xs), min(ys), max(xs), max(ys))
    offsets = [*(x - box[0] for x in xs), *(y - box[1] for y in ys)]
    return roi(kind, box, struct.pack(f">{len(offsets)}H", *offsets), count=len(points), **fields)


def path_roi(numbers: Sequence[float], box: Sequence[int] = (0, 0, 1, 1), **fields: Any) -> bytes:
    """A composite: commands of a path with their coordinates."""
    return roi(RECTANGLE, box, struct.pack(f">{len(numbers)}f", *numbers), paths=len(numbers), **fields)

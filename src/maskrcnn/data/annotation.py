"""One annotation or category of a file, and the checks of its values. `builder.py` lists the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import hotcoco.mask
import numpy as np

from maskrcnn.config import Category
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.ops.polygons import polygon_area, polygons_to_rle
from maskrcnn.structures.annotations import NO_MASK, POLYGONS, RUN_LENGTHS, pack_polygons, unpack_polygons
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import FARTHEST, as_id, is_number, short

Size = tuple[int, int]  # height and width of an image
Box = tuple[float, float, float, float]  # x, y, width, height
Draw = Callable[[Size], Mapping[str, Any]]
"""Gives fields of a `RawAnnotation` for an image of a height and width. Raises DataError if the shape is broken."""


class RawAnnotation(NamedTuple):
    """One annotation of a file, in original pixels. Nothing is checked yet: values may be of any type.

    At most one of `polygons`, `rle`, `bitmap` and `draw` is given. Without any of them, the object has only a box.

    Attributes:
        image_id, category_id: the ids given to `add_image` and `add_category`.
        id: None if the format has no annotation ids.
        box: x, y, width, height; None or an empty list for the tight box of the mask.
        polygons: the parts of the mask, each a list of numbers x, y, x, y, ...
        rle: `{"size": [h, w], "counts": ...}`, as for `RLE.from_coco`.
        pixels: foreground pixels of `rle` if `known_areas` found it valid, else -1.
        bitmap: (H, W) bool or integers; nonzero pixels are foreground.
        draw: gives the fields of the mask or the box, where that takes time.
        where: its place in the files, for messages; empty for its id and its image.
        crowd: whether it is a crowd region, which is neither an object nor background; read by `crowd_of`.
        area: square pixels; evaluation sorts objects into small, medium and large by it.
        keypoints: x, y, visibility of all keypoints in one list; None or empty if none is labelled.
        score: from 0 to 1, for predicted objects; either all objects of a data set have one, or none has.
    """

    image_id: Any
    category_id: Any
    id: Any = None
    box: Any = None
    polygons: Any = None
    rle: Any = None
    pixels: int = -1
    bitmap: np.ndarray | None = None
    draw: Draw | None = None
    where: str = ""
    crowd: Any = False
    area: Any = None
    keypoints: Any = None
    score: float | None = None


class Drawn(NamedTuple):
    """Mask and box of an annotation as a data set holds them.

    Attributes:
        crowd: as in `Annotations`.
        kind, content: an entry of `Annotations.kinds`, and the bytes for `Annotations.segmentations`.
        pixels: foreground pixels; -1 if they were not counted.
        bad_part: what is wrong with a mask that is kept; empty if nothing is.
        bad_box: why the annotated box is left out; empty if it is used or if there is none.
        fault: why the annotation cannot be used; empty if it can.
    """

    crowd: bool = False
    kind: int = NO_MASK
    content: bytes = b""
    box: Box = (0.0, 0.0, 0.0, 0.0)
    pixels: int = -1
    bad_part: str = ""
    bad_box: str = ""
    fault: str = ""


def drawn(given: tuple[RawAnnotation, Size]) -> Drawn:
    """Mask and box of an annotation of an image of a height and width."""
    raw, size = given
    try:
        raw = raw._replace(**raw.draw(size)) if raw.draw else raw
        crowd = crowd_of(raw)
        kind, content, bad_part = mask_of(raw, size)
        box, bad_box = box_of(raw, kind, content, size)
    except DataError as error:
        return Drawn(fault=str(error))
    return Drawn(crowd, kind, content, box, raw.pixels, bad_part, bad_box)


def mask_of(raw: RawAnnotation, size: Size) -> tuple[int, bytes, str]:
    """The mask of an annotation: an entry of `Annotations.kinds`, the bytes for `Annotations.segmentations`, and what
    is wrong with a mask that is kept (empty if nothing is).

    Raises:
        DataError: the mask is malformed, or has another size than the image.
    """
    if raw.rle is not None:
        mask = RLE.from_coco(raw.rle, sound=raw.pixels >= 0)
    elif raw.bitmap is not None:
        mask = RLE.from_dense(raw.bitmap)
    elif raw.polygons is None or raw.polygons == []:
        return NO_MASK, b"", ""
    else:
        parts, fault = _polygons(raw.polygons)
        points = [part.reshape(-1, 2) for part in parts]
        if not any(map(polygon_area, points)) and RLE(size, polygons_to_rle(points, size)).area == 0:
            fault = fault or "the polygon has no area"
        return POLYGONS, pack_polygons([part.tolist() for part in parts]), fault
    if mask.size != size:
        cause = ": height and width are swapped" if mask.size == size[::-1] else ""
        raise DataError(f"expected a mask of the image's height, width {size}, found {mask.size}{cause}")
    empty = raw.pixels <= 0 and mask.area == 0
    return RUN_LENGTHS, mask.counts, "the mask covers no pixel of its image" if empty else ""


def _polygons(given: Any) -> tuple[list[np.ndarray], str]:
    """The sound polygons of a mask, each (2 n,) float64 x, y, x, y, ..., and what is wrong with the first other one.

    Tools leave parts of one or two points in good masks. Detectron2 leaves out such a part and keeps the object, too.
    Some tools write a single polygon without the list around it, or points as pairs.

    Raises:
        DataError: no polygon is sound.
    """
    if not isinstance(given, list | tuple):
        raise DataError(f"expected segmentation as polygons or run lengths, found {short(given)}")
    if given and (all(map(is_number, given)) or all(map(_is_pair, given))):
        given = [given]
    parts, fault = [], ""
    for part in given:
        try:
            parts.append(_polygon(part))
        except DataError as error:
            fault = fault or str(error)
    if not parts:
        raise DataError(fault)
    return parts, fault


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value))


def _polygon(given: Any) -> np.ndarray:
    try:
        points = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros((0, 0))
    if points.ndim == 2 and points.shape[1] == 2:
        points = points.ravel()
    if points.ndim != 1:
        raise DataError(f"expected polygons as lists of numbers x, y, x, y, ..., found {short(given)}")
    if len(points) < 6 or len(points) % 2:
        raise DataError(f"expected polygons of at least 3 points, found {len(points)} numbers")
    if not np.isfinite(points).all():
        raise DataError("the polygon has a coordinate that is not a finite number")
    if (farthest := np.abs(points).max()) > FARTHEST:
        raise DataError(f"the polygon reaches {farthest:.3g} pixels away, too far for any image")
    return points


def box_of(raw: RawAnnotation, kind: int, content: bytes, size: Size) -> tuple[Box, str]:
    """The box of an annotation, and why the annotated one is left out (empty if it is used or if there is none).

    The tight box of the mask replaces a box that is missing, malformed or empty.

    Args:
        kind, content: the mask, from `mask_of`.

    Raises:
        DataError: there is neither a usable box nor a mask with a pixel.
    """
    given = raw.box
    if given is None or given == []:
        return _tight_box(kind, content, size), ""
    if not isinstance(given, list | tuple) or len(given) != 4 or not all(map(is_number, given)):
        fault = f"expected bbox as four finite numbers x, y, width, height, found {short(given)}"
    else:
        x, y, w, h = map(float, given)
        inside = min(x + w, size[1]) > max(x, 0) and min(y + h, size[0]) > max(y, 0)
        if max(map(abs, (x, y, w, h))) > FARTHEST:
            fault = f"bbox {short(given)} reaches too far for any image"
        elif w <= 0 or h <= 0:
            fault = f"bbox {short(given)} has no area"
        elif kind == NO_MASK and not inside:
            fault = f"bbox {short(given)} has no area inside the image of {size[1]} x {size[0]} pixels"
        else:
            return (x, y, w, h), ""
    if kind == NO_MASK:
        raise DataError(fault)
    return _tight_box(kind, content, size), fault


def _tight_box(kind: int, content: bytes, size: Size) -> Box:
    if kind == NO_MASK:
        raise DataError("expected a segmentation or a bbox, found neither")
    counts = content
    if kind == POLYGONS:
        counts = polygons_to_rle(unpack_polygons(np.frombuffer(content, dtype=np.uint8)), size)
    x, y, width, height = map(float, hotcoco.mask.to_bbox({"size": list(size), "counts": counts}))
    if width <= 0:
        raise DataError("the mask covers no pixel of its image")
    return x, y, width, height


_CROWD = {"0": False, "false": False, "": False, "none": False, "1": True, "true": True}


def crowd_of(raw: RawAnnotation) -> bool:
    """Whether an annotation is a crowd region. Some tools write the flag as text, and `bool("false")` is True.

    Raises:
        DataError: the flag is neither 0 nor 1 nor a text or truth value that means one of them.
    """
    if raw.crowd is False or raw.crowd == 0:
        return False
    if isinstance(raw.crowd, int | float) and raw.crowd == 1:
        return True
    try:
        return _CROWD[str(raw.crowd).lower()]
    except KeyError:
        raise DataError(f"expected iscrowd as 0 or 1, found {short(raw.crowd)}") from None


def unique_ids(given: Sequence[int | str | None], positions: Sequence[int], last: int) -> list[int | str]:
    """The id of each annotation. One without its own gets its position in the file, or the next free number.

    Args:
        given: their own ids, all different; None for an annotation without one.
        positions: among all annotations of the file.
        last: the largest of these.
    """
    own_ids = [own for own in given if own is not None]
    if len(own_ids) == len(given):
        return own_ids
    taken = set(own_ids)
    free = (number for number in count(last + 1) if number not in taken)
    return [
        own if own is not None else position if position not in taken else next(free)
        for own, position in zip(given, positions, strict=True)
    ]


def category_of(
    file: Path,
    number: Any,
    name: Any,
    keypoints: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
    sigmas: Sequence[float],
) -> Category:
    """The category that values of a file describe; arguments and errors as for `DatasetBuilder.add_category`."""
    key = as_id(number)
    if key is None:
        raise DataError(
            f"{file}: expected categories with an id and a name, found id {short(number)}, name {short(name)}"
        )
    if not isinstance(name, str):
        found = f"found {short(name)}; write it in quotation marks"
        raise DataError(f"{file}: category {short(number)}: expected a name as text, {found}")
    try:
        return Category(key, _storable(name), tuple(map(_storable, keypoints)), tuple(skeleton), tuple(sigmas))
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def _storable(name: str) -> str:
    """The name with `?` in place of halves of characters (lone surrogates), which no file can hold."""
    return name.encode("utf-8", "replace").decode()

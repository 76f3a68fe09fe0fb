"""Reads the annotations of a COCO JSON straight into columns, without an object for each number of the file.

The text is decoded a block at a time, and only the usual form of an annotation is known here. An annotation in any
other form is parsed like a small file, and judged by the general rules.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from math import nan
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, MsgspecError, Raw, Struct

from maskrcnn.data.bulk.plain import PAIR, Block, Known, PlainAnnotations, unremarkable
from maskrcnn.files.json_file import parse_json
from maskrcnn.files.json_pieces import Text, groups, read_text
from maskrcnn.structures.annotations import NO_MASK, POLYGONS, RUN_LENGTHS, pack_polygons, unpack_polygons
from maskrcnn.structures.records import ByteBuffer
from maskrcnn.structures.values import as_id

_AT_ONCE = 4096  # annotations that are judged together

_Int = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]  # that fits in an array
_Polygon = Annotated[list[float], Meta(min_length=6)]


class _RunLengths(Struct, gc=False):
    size: tuple[_Int, _Int]
    counts: str


class _Annotation(Struct, gc=False):
    image_id: _Int
    category_id: _Int
    id: _Int
    bbox: tuple[float, float, float, float]
    segmentation: Annotated[list[_Polygon], Meta(min_length=1)] | _RunLengths | None = None
    iscrowd: _Int = 0
    area: float = nan


class _Category(Struct, gc=False):
    category_id: Any = None


class _File(Struct):
    images: Raw
    categories: Raw
    annotations: list[Raw]


class CocoText(NamedTuple):
    """A COCO JSON with plain lists.

    Attributes:
        path: the file.
        images, categories: parsed.
        annotations: the text of each.
        text: that of the file.
    """

    path: Path
    images: list[Any]
    categories: list[Any]
    annotations: list[Raw]
    text: Text


def open_text(path: Path) -> CocoText | None:
    """The lists of a COCO JSON; None if the file cannot be read in this way, for whatever reason."""
    with suppress(OSError, ValueError, RecursionError):
        text = read_text(path)
        file = msgspec.json.decode(text, type=_File)
        images, categories = (msgspec.json.decode(part, type=list) for part in (file.images, file.categories))
        return CocoText(path, images, categories, file.annotations, text)
    return None


def used_categories(annotations: Iterable[Raw]) -> set[Any]:
    """The category ids of annotations."""
    decode = msgspec.json.Decoder(_Category).decode
    found = set()
    for piece in annotations:
        with suppress(MsgspecError):
            found.add(as_id(decode(piece).category_id))
    return found


def read_annotations(file: CocoText, known: Known, buffer: ByteBuffer) -> tuple[PlainAnnotations, dict[int, Any]]:
    """The annotations of a file. Its text is gone afterwards.

    Returns:
        Those that no rule changes, with masks in the buffer, and all others, parsed, by their numbers from 1.

    Raises:
        DataError: the text of an annotation is JSON that Python does not parse, such as a number of 5,000 digits.
    """
    plain = [unremarkable(_block([], 0), known, buffer)]
    others: dict[int, bytes] = {}
    for group, pieces in enumerate(groups(file.annotations, file.text, _AT_ONCE)):
        first = 1 + group * _AT_ONCE
        plain.append(unremarkable(_block(pieces, first), known, buffer))
        missing = np.ones(len(pieces), dtype=np.bool_)
        missing[plain[-1].numbers - first] = False
        others |= {first + i: bytes(pieces[i]) for i in np.flatnonzero(missing).tolist()}
    found = PlainAnnotations.joined(plain)
    plain.clear()
    entries = {number: parse_json(text, file.path, "a COCO JSON") for number, text in others.items()}
    repeated = _repeated(found.ids, entries.values())
    for i in np.flatnonzero(repeated).tolist():
        entries[int(found.numbers[i])] = _entry(found, i, buffer)
    return found.taken(~repeated) if repeated.any() else found, dict(sorted(entries.items()))


def _block(pieces: Sequence[Raw], first: int) -> Block:
    """The annotations of usual form among the texts `pieces`, whose numbers begin with `first`."""
    entries: list[_Annotation] = []
    numbers, kinds = array("q"), bytearray()
    packed, ends = bytearray(), array("q", [0])
    strings: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    decode = msgspec.json.Decoder(_Annotation).decode
    for number, piece in enumerate(pieces, start=first):
        try:
            entry = decode(piece)
        except MsgspecError:
            continue
        mask, entry.segmentation = entry.segmentation, None  # so that its numbers live only until they are packed
        if isinstance(mask, list):
            packed += pack_polygons(mask)
            if len(packed) % PAIR:  # a number of coordinates is odd
                del packed[ends[-1] :]
                continue
            ends.append(len(packed))
            kinds.append(POLYGONS)
        elif mask is None:
            kinds.append(NO_MASK)
        elif mask.counts.isascii():
            kinds.append(RUN_LENGTHS)
            strings.append(mask.counts.encode("ascii"))
            sizes.append(mask.size)
        else:
            continue
        numbers.append(number)
        entries.append(entry)
    return Block(
        np.array(numbers, dtype=np.int64),
        np.array([entry.id for entry in entries], dtype=np.int64),
        np.array([entry.image_id for entry in entries], dtype=np.int64),
        np.array([entry.category_id for entry in entries], dtype=np.int64),
        np.array([entry.iscrowd for entry in entries], dtype=np.int64),
        np.fromiter(chain.from_iterable([entry.bbox for entry in entries]), np.float64).reshape(-1, 4),
        np.array([entry.area for entry in entries], dtype=np.float64),
        np.array(kinds, dtype=np.uint8),
        packed,
        np.array(ends, dtype=np.int64),
        strings,
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
    )


def _repeated(ids: np.ndarray, others: Iterable[Any]) -> np.ndarray:
    """Which of (N,) ids another annotation has, too."""
    given = {as_id(entry.get("id")) for entry in others if isinstance(entry, dict)}
    elsewhere = [key for key in given if isinstance(key, int) and abs(key) < 1 << 63]
    unique, counts = np.unique(ids, return_counts=True)
    return np.isin(ids, np.concatenate([unique[counts > 1], np.array(elsewhere, dtype=np.int64)]))


def _entry(found: PlainAnnotations, i: int, buffer: ByteBuffer) -> dict[str, Any]:
    """Annotation number `i` as an entry of a COCO JSON."""
    content = buffer.view(*found.spans[i].tolist())
    mask: Any = None
    if found.kinds[i] == POLYGONS:
        mask = [part.ravel().tolist() for part in unpack_polygons(content)]
    elif found.kinds[i] == RUN_LENGTHS:
        mask = {"size": found.sizes_hw[i].tolist(), "counts": content.tobytes().decode("ascii")}
    return {
        "id": int(found.ids[i]),
        "image_id": int(found.image_ids[i]),
        "category_id": int(found.category_ids[i]),
        "bbox": found.boxes[i].tolist(),
        "area": float(found.areas[i]),
        "iscrowd": int(found.crowd[i]),
        "segmentation": mask,
    }

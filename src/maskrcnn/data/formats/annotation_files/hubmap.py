"""Reads `polygons.jsonl` of the competition "HuBMAP: Hacking the Human Vasculature" (2023): a line for each image.

The rings of a polygon are even-odd. `unsure` marks what experts could not tell from a blood vessel. It becomes a crowd
region of that class.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskrcnn.data.annotation import Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.doubts import first_of
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import (
    Draw,
    Labelled,
    Region,
    add_labelled,
    entries,
    labels_of,
    only_file,
    regions_of,
    rings_draw,
)
from maskrcnn.data.pictures import add_named_categories, add_unlabelled, files_in
from maskrcnn.data.regions import points_of
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import json_outline
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import as_id, short

name = "HuBMAP polygons"
key = "hubmap"
takes = frozenset({"missing"})

_UNSURE, _VESSEL = "unsure", "blood_vessel"


def recognise(path: Path) -> bool:
    """Whether a file, or a JSONL in a folder, has lines with `annotations` of `coordinates`."""
    return any(map(_is_hubmap, _files(path)))


def _files(path: Path) -> list[Path]:
    return files_in(path, ".jsonl") if path.is_dir() else [path]


def _is_hubmap(file: Path) -> bool:
    outline = json_outline(file)
    return outline is not None and "annotations" in outline.keys[0] and {"type", "coordinates"} <= outline.keys[1]


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads the polygons of HuBMAP.

    Args:
        path: the JSONL, or the folder with it.
        images: folder of the images; default: they are searched for from the file, as in `train`.
        strict: raise at the first broken line or polygon, instead of leaving it out.
        hints: `missing` is used for images without a line.

    Raises:
        DataError: there is no such file, or a line is broken and `strict` is set.
    """
    path = only_file(path, _files(path), "JSONL of polygons")
    builder = DatasetBuilder(path, strict=strict)
    items = list(_images(builder, path))
    if not items:
        why = first_of(builder.problems, path)
        raise DataError(f"{path}: expected lines with id and annotations, found none that can be used{why}")
    add_named_categories(builder, labels_of(items))
    unsure = sum(region.kind == _UNSURE for item in items for region in item.regions)
    if unsure:
        builder.choice(f"{unsure} objects of which experts were unsure become crowd regions of {_VESSEL}")
    add_unlabelled(builder, add_labelled(builder, items, images), hints.missing)
    return builder.build()


def _images(builder: DatasetBuilder, path: Path) -> Iterator[Labelled]:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            where = f"line {number}"
            try:
                content = json.loads(line) if line.strip() else None
                if content is not None:
                    yield _image(builder, path, where, content)
            except (ValueError, RecursionError) as error:
                builder.problem(f"{where}: not JSON ({error})")
            except DataError as error:
                builder.problem(f"{where}: {error}")


def _image(builder: DatasetBuilder, path: Path, where: str, content: Any) -> Labelled:
    own = as_id(content.get("id")) if isinstance(content, Mapping) else None
    if own is None:
        raise DataError(f"expected an object with id and annotations, found {short(content)}")
    regions = regions_of(builder, f"{where}: annotations", entries(content, "annotations"), _region)
    return Labelled(own, where, path, [f"{own}.tif"], None, regions)


def _region(entry: Mapping[str, Any]) -> Region:
    label = entry.get("type")
    if not isinstance(label, str):
        raise DataError(f"expected the type of an object, found {short(label)}")
    draw = rings_draw([points_of(ring) for ring in entries(entry, "coordinates")])
    return Region(_VESSEL, _UNSURE, _as_crowd(draw)) if label == _UNSURE else Region(label, "polygon", draw)


def _as_crowd(draw: Draw) -> Draw:
    def crowd(size: Size) -> Mapping[str, Any]:
        return {**draw(size), "crowd": True}

    return crowd

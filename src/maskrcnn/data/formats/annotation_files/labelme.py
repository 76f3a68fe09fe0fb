"""Reads labelme's files (https://github.com/wkentaro/labelme), one JSON for each image, also those of X-AnyLabeling.

Shapes with one label and one group number are one object. Lines and points have no area. Polygons, rectangles and
circles are drawn as the COCO API draws polygons, while labelme itself adds the outline.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.data.annotation import RawAnnotation, Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.doubts import first_of
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import Place
from maskrcnn.data.labelled import of_jsons
from maskrcnn.data.pictures import (
    NO_CLASS,
    Picture,
    add_named_categories,
    add_picture,
    add_unlabelled,
    files_in,
    find_pictures,
    image_files_in,
    open_picture,
)
from maskrcnn.data.regions import (
    ellipse,
    joined,
    png_of,
    png_to_rle,
    points_of,
    rectangle,
)
from maskrcnn.data.writing import Holds, Lost, class_name, new_file, objects_to_write
from maskrcnn.errors import DataError, omission
from maskrcnn.files.json_file import json_outline
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import as_id, is_int, short

name = "labelme"
key = "labelme"
image_folder = ""
takes = frozenset({"missing"})
holds: Holds = frozenset({"scores"})

_JSONS_TO_RECOGNISE = 8
_NO_AREA = frozenset({"line", "linestrip", "point", "points"})
_POLYGONS = frozenset({"polygon", "oriented_rectangle", "rotation", "quadrilateral"})


class _File(NamedTuple):
    """One JSON.

    Attributes:
        image: the name of the image in it.
        size: the height and width in it; None in old files.
        holds_image: whether the image itself is in it.
    """

    path: Path
    image: str
    size: Size | None
    holds_image: bool
    shapes: list[Any]


def recognise(path: Path) -> bool:
    """Whether a file, or a JSON in a folder, has labelme's shapes."""
    return any(map(_is_labelme, files_in(path, ".json")[:_JSONS_TO_RECOGNISE] if path.is_dir() else [path]))


def _is_labelme(file: Path) -> bool:
    outline = json_outline(file)
    return outline is not None and not outline.is_list and {"shapes", "imagePath"} <= outline.keys[0]


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads the labelme files of a folder, or a single one.

    Args:
        path: the folder, or the file.
        images: folder of the images; default: they are searched for from the folder of the files.
        strict: raise at the first broken file or shape, instead of leaving it out.
        hints: `missing` is used for images without a file.

    Raises:
        DataError: there is no labelme file, or one is broken and `strict` is set.
    """
    builder = DatasetBuilder(path, strict=strict)
    jsons = files_in(path, ".json") if path.is_dir() else [path]
    files = of_jsons(builder, jsons, "a labelme file", _read_file)
    if not files:
        raise DataError(
            f"{path}: expected labelme files with shapes and imagePath, found none among {len(jsons)} JSONs"
            + first_of(builder.problems, path)
        )
    pictures = _find_pictures(files, images)
    shapes = [
        shape for file in files for shape in file.shapes if isinstance(shape, Mapping) and _kind(shape) not in _NO_AREA
    ]
    labels = {_label(shape) for shape in shapes}
    add_named_categories(builder, labels - NO_CLASS - {""})
    left_out: Counter[str] = Counter()
    for file in files:
        size = add_picture(builder, file.path.stem, pictures[file.path], file.size)
        if size is not None:
            _add_objects(builder, file, size, left_out)
    for kind, number in left_out.items():
        builder.choice(f"{omission(number, 'shape')}, because {kind}")
    if path.is_dir():
        listed = {picture.path for picture in pictures.values()}
        folders = {picture.path.parent for picture in pictures.values() if not picture.fault}
        rest = [file for folder in sorted(folders) for file in image_files_in(folder) if file not in listed]
        add_unlabelled(builder, rest, hints.missing)
    return builder.build()


def write(parts: Mapping[str, Dataset], folder: Path) -> Lost:
    """Writes a JSON beside each image. Polygons stay polygons, the parts of an object as a group; other masks become
    shapes of the type mask."""
    lost: Lost = Counter()
    for dataset in parts.values():
        for index, record in enumerate(dataset.records):
            content: dict[str, Any] = {
                "version": "5.5.0",
                "flags": {},
                "shapes": _shapes(dataset, index, lost),
                "imagePath": record.path.name,
                "imageData": None,
                "imageHeight": record.height,
                "imageWidth": record.width,
            }
            file = new_file(record.path.with_suffix(".json"))
            file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return lost


def _shapes(dataset: Dataset, index: int, lost: Lost) -> list[dict[str, Any]]:
    annotations = dataset.annotations(index)
    numbers = objects_to_write(annotations, holds, lost)
    shapes: list[dict[str, Any]] = []
    for number, (bitmap, (x, y)) in zip(numbers, annotations.crops(numbers), strict=True):
        polygons = annotations.polygons(number)
        shape: dict[str, Any] = {
            "label": class_name(dataset, annotations, number, lost),
            "group_id": number if len(polygons) > 1 else None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        if annotations.scores is not None:
            shape["score"] = float(annotations.scores[number])  # X-AnyLabeling shows it
        shapes += [{**shape, "points": points.tolist()} for points in polygons]
        if not polygons:
            last = [x + bitmap.shape[1] - 1, y + bitmap.shape[0] - 1]
            shapes.append({**shape, "points": [[x, y], last], "shape_type": "mask", "mask": png_of(bitmap)})
    return shapes


def _read_file(builder: DatasetBuilder, path: Path, where: str, content: Any) -> list[_File]:
    """The content of a labelme file; any other JSON is passed over."""
    if not isinstance(content, Mapping) or "shapes" not in content:
        return []
    if not isinstance(content["shapes"], list):
        raise DataError(f"expected shapes as a list, found {short(content['shapes'])}")
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (height, width) if is_int(height) and is_int(width) and height > 0 and width > 0 else None
    image = content.get("imagePath")
    name = image if isinstance(image, str) and image else path.stem
    return [_File(path, name, size, isinstance(content.get("imageData"), str), content["shapes"])]


def _find_pictures(files: Sequence[_File], images: Path | None) -> dict[Path, Picture]:
    """The image of each file: the one it names, else the one that is named like the file, else the one inside it."""
    named = find_pictures((file.image for file in files), files[0].path, images)
    lost = [file for file in files if named[file.image].fault]
    alike = find_pictures((file.path.stem for file in lost), files[0].path, images)
    found = {file.path: named[file.image] for file in files}
    for file in lost:
        if not alike[file.path.stem].fault:
            found[file.path] = alike[file.path.stem]
        elif file.holds_image:
            found[file.path] = open_picture(Place(file.path))
    return found


def _kind(shape: Mapping[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")  # labelme 3 wrote only polygons


def _label(shape: Mapping[str, Any]) -> str:
    """The class of a shape; empty if it has none. labelme writes text, and other programs write numbers, too."""
    label = as_id(shape.get("label"))
    return "" if label is None else str(label)


def _add_objects(builder: DatasetBuilder, file: _File, size: Size, left_out: Counter[str]) -> None:
    """Adds the objects of a file: one for each group of a label, and one for each shape without a group."""
    objects: dict[tuple[str, Any], list[np.ndarray | RLE]] = {}
    places: list[str] = []  # of the first shape of each object
    for number, shape in enumerate(file.shapes):
        where = f"{file.path.name}: shapes[{number}]"
        if not isinstance(shape, Mapping):
            builder.problem(f"{where}: expected an object with label and points, found {short(shape)}")
            continue
        if not _label(shape):
            found = short(shape.get("label"))
            builder.problem(f"{where}: expected a label as text, found {found}; label the shape or remove it")
            continue
        kind = _kind(shape)
        if kind in _NO_AREA:
            left_out[f"{kind} has no area"] += 1
        elif _label(shape) in NO_CLASS:
            left_out[f"{_label(shape)} is no class"] += 1
        else:
            try:
                part = _part(shape, kind, size)
            except DataError as error:
                builder.problem(f"{where}: {error}")
                continue
            group = shape.get("group_id")
            own = ("shape", number) if group is None else ("group", str(group))
            if (_label(shape), own) not in objects:
                places.append(where)
            objects.setdefault((_label(shape), own), []).append(part)
    for number, ((label, _), parts) in enumerate(objects.items()):
        own_id = f"{file.path.stem}:{number}"
        builder.add_annotation(
            RawAnnotation(file.path.stem, label, own_id, draw=partial(joined, parts), where=places[number])
        )


def _part(shape: Mapping[str, Any], kind: str, size: Size) -> np.ndarray | RLE:
    """The (n, 2) polygon of a shape, or its mask.

    Raises:
        DataError: the shape is broken, or of a kind that we do not know.
    """
    points = points_of(shape.get("points"))
    if kind in _POLYGONS or (kind == "rectangle" and len(points) == 4):  # X-AnyLabeling writes four corners
        if len(points) < 3:
            raise DataError(f"expected a polygon of at least 3 points, found {len(points)}")
        return points
    if kind not in ("rectangle", "circle", "mask"):
        raise DataError(f"expected a known shape_type, found {short(kind)}")
    if len(points) != 2:
        raise DataError(f"expected a {kind} of 2 points, found {len(points)}")
    (x, y), (x2, y2) = points.tolist()
    if kind == "rectangle":
        return rectangle(x, y, x2, y2)
    if kind == "circle":
        radius = math.hypot(x2 - x, y2 - y)
        return ellipse((x, y), (radius, radius))
    # The points are the first and the last pixel; labelme 5 writes fractions, and only the size of the PNG is right.
    return png_to_rle(shape.get("mask"), (round(x), round(y)), size)

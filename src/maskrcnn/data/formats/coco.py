"""Reads and writes COCO JSON (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.image_places import Place, find_images
from maskrcnn.errors import DataError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.json_file import read_json
from maskrcnn.structures.coco import coco_annotations
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.keypoints import PIXEL_CENTRE
from maskrcnn.structures.masks import known_areas
from maskrcnn.structures.values import is_int, is_number, short

name = "COCO JSON"

_IMAGE_KEYS = ("id", "file_name", "height", "width")  # all other keys of an image are kept in `Record.fields`


def recognise(path: Path) -> bool:
    """Whether a path is a `.json` file, a file that begins with "{", or a folder with a `.json` file."""
    if path.is_dir():
        return any(path.glob("*.json"))
    if path.suffix.lower() == ".json":
        return True
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip().startswith(b"{")
    except OSError:
        return False


def read(path: Path, images: Path | None = None, *, strict: bool = False) -> Dataset:
    """Reads a COCO JSON.

    A segmentation may be polygons, compressed or uncompressed run lengths, or missing. Keypoints of an annotation are
    read if its category names keypoints.

    Args:
        path: the JSON, or a folder with exactly one JSON or an `annotations.json`.
        images: folder of the images; None for the places that `find_images` knows.
        strict: raise at the first broken image or annotation, instead of leaving it out.

    Raises:
        DataError: the file cannot be used, or an image or annotation is broken and `strict` is set.
    """
    path = _find_json(path)
    return from_content(read_json(path, "a COCO JSON"), path, images, strict=strict)


def from_content(content: Any, path: Path, images: Path | None = None, *, strict: bool = False) -> Dataset:
    """Like `read`, with the parsed content of the JSON at `path`."""
    keys = ("images", "annotations", "categories")
    if not isinstance(content, Mapping) or not all(isinstance(content.get(key), list) for key in keys):
        keyed = isinstance(content, Mapping)
        found = f"keys {', '.join(map(str, list(content)[:6]))}" if keyed else type(content).__name__
        raise DataError(f"{path}: expected COCO JSON, an object with lists {', '.join(keys)}, found {found}")
    builder = DatasetBuilder(path, strict=strict, keypoint_shift=PIXEL_CENTRE)
    for entry in content["categories"]:
        _add_category(builder, entry)
    places = find_images([_file_name(entry) for entry in content["images"]], path, images)
    for entry, place in zip(content["images"], places, strict=True):
        _add_image(builder, entry, place)
    pixels = known_areas([a.get("segmentation") if isinstance(a, Mapping) else None for a in content["annotations"]])
    for entry, known in zip(content["annotations"], pixels.tolist(), strict=True):
        if not isinstance(entry, Mapping):
            builder.problem(f"expected annotations as objects, found {short(entry)}")
            continue
        mask = entry.get("segmentation")
        runs = isinstance(mask, Mapping)
        builder.add_annotation(
            RawAnnotation(
                entry.get("image_id"),
                entry.get("category_id"),
                entry.get("id"),
                entry.get("bbox"),
                polygons=None if runs else mask,
                rle=mask if runs else None,
                pixels=known,
                crowd=entry.get("iscrowd", 0),
                area=entry.get("area"),
                keypoints=None if entry.get("num_keypoints") == 0 else entry.get("keypoints"),
            )
        )
    return builder.build()


def write(dataset: Dataset, path: Path) -> None:
    """Writes a data set as COCO JSON. Image paths are relative to its folder."""
    images = [
        {
            "id": record.image_id,
            "file_name": os.path.relpath(record.path, path.parent),
            "height": record.height,
            "width": record.width,
            **record.fields,
        }
        for record in dataset.records
    ]
    categories: list[dict[str, Any]] = []
    for category in dataset.categories:
        limbs = [(start + 1, end + 1) for start, end in category.skeleton]
        optional = {"keypoints": category.keypoints, "skeleton": limbs, "sigmas": category.sigmas}
        given = {key: value for key, value in optional.items() if value}
        categories.append({"id": category.id, "name": category.name, **given})
    annotations = [entry for index in range(len(dataset)) for entry in coco_annotations(dataset, index)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _add_category(builder: DatasetBuilder, entry: Any) -> None:
    if not isinstance(entry, Mapping):
        raise DataError(f"{builder.path}: expected categories as objects with id and name, found {short(entry)}")
    where = f"category {entry.get('name')}"
    names, limbs, sigmas = (entry.get(key) or [] for key in ("keypoints", "skeleton", "sigmas"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{builder.path}: {where}: expected keypoints as a list of names, found {short(names)}")
    if not names:
        limbs = []
    elif not isinstance(limbs, list) or not all(
        isinstance(limb, list) and len(limb) == 2 and all(is_int(end) and 1 <= end <= len(names) for end in limb)
        for limb in limbs
    ):
        builder.problem(
            f"{where}: expected skeleton as pairs of keypoints numbered 1..{len(names)}, found {short(limbs)}"
        )
        limbs = []
    if not isinstance(sigmas, list) or not all(map(is_number, sigmas)):
        raise DataError(
            f"{builder.path}: {where}: expected sigmas as {len(names)} numbers between 0 and 1, found {short(sigmas)}"
        )
    skeleton = [(start - 1, end - 1) for start, end in limbs]
    builder.add_category(entry.get("id"), entry.get("name"), names, skeleton, sigmas)


def _file_name(entry: Any) -> str:
    """The name of an image's file. The images of LVIS have only an address."""
    if not isinstance(entry, Mapping):
        return ""
    names = (entry.get("file_name"), entry.get("coco_url"), f"{entry.get('id')} (no file_name)")
    return next(name for name in names if isinstance(name, str))


def _add_image(builder: DatasetBuilder, entry: Any, place: Place) -> None:
    if not isinstance(entry, Mapping):
        builder.problem(f"expected images as objects, found {short(entry)}")
        return
    fields = {key: value for key, value in entry.items() if key not in _IMAGE_KEYS}
    # Evaluation of results needs no image files, so an image without a file is kept. Only reading it fails.
    builder.add_image(entry.get("id"), place.path, entry.get("height"), entry.get("width"), fields, place.fault)


def _find_json(path: Path) -> Path:
    """The COCO JSON at a path: the file itself, or the one in the folder."""
    if not path.is_dir():
        return path
    found = [path / "annotations.json"] if (path / "annotations.json").is_file() else sorted(path.glob("*.json"))
    if len(found) != 1:
        listed = ", ".join(p.name for p in found[:5]) or "none"
        raise DataError(f"{path}: expected one COCO JSON in the folder, found {listed}; name the file itself")
    return found[0]

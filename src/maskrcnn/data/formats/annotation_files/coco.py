"""Reads and writes COCO JSON (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.bulk.coco_text import CocoText, open_text, read_annotations, used_categories
from maskrcnn.data.bulk.plain import PlainAnnotations
from maskrcnn.data.cache import cached_json
from maskrcnn.data.coco_dialects import (
    JSONS_TO_RECOGNISE,
    classes_of_false_crowds,
    classes_of_no_object,
    coco_jsons,
    find_json,
    is_coco,
    of_segment_anything,
    plain_coco,
    segment_anything_files,
)
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import FoundFile, find_files
from maskrcnn.data.labelled import of_jsons
from maskrcnn.data.writing import Holds, Lost
from maskrcnn.errors import DataError, ImageError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.images import image_size
from maskrcnn.files.json_file import read_json
from maskrcnn.structures.annotations import RUN_LENGTHS
from maskrcnn.structures.coco import coco_annotations
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.keypoints import PIXEL_CENTRE
from maskrcnn.structures.masks import known_areas
from maskrcnn.structures.records import Records
from maskrcnn.structures.values import as_id, is_id, is_int, is_number, short

name = "COCO JSON"
key = "coco"
image_folder = "images"
takes = frozenset[str]()
holds: Holds = frozenset({"boxes", "scores"})

_LISTS = ("images", "annotations", "categories")
_IMAGE_KEYS = ("id", "file_name", "height", "width")  # all other keys of an image are kept in `Record.fields`


def recognise(path: Path) -> bool:
    """Whether a file, or a JSON in a folder, has the lists of COCO or of one of its dialects."""
    return any(map(is_coco, coco_jsons(path)[:JSONS_TO_RECOGNISE] if path.is_dir() else [path]))


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads a COCO JSON.

    A segmentation may be polygons, compressed or uncompressed run lengths, or missing. Keypoints of an annotation are
    read if its category names keypoints. `data/coco_dialects.py` lists what programs write in another way.

    Args:
        path: the JSON, or a folder with exactly one JSON or an `annotations.json`, or with the files of Segment
            Anything, one for each image.
        images: folder of the images; None for the places that `find_images` knows.
        strict: raise at the first broken image or annotation, instead of leaving it out.
        hints: not used; a COCO JSON says everything itself.

    Raises:
        DataError: the file cannot be used, or an image or annotation is broken and `strict` is set.
    """
    if files := segment_anything_files(path):
        return _from_segment_anything(files, path, images, strict)
    path = find_json(path)
    return cached_json(path, (images, strict), lambda: _read(path, images, strict))


def _read(path: Path, images: Path | None, strict: bool) -> Dataset:
    with _uncollected():
        if file := open_text(path):
            return _from_text(file, path, images, strict)
        return from_content(read_json(path, "a COCO JSON"), path, images, strict=strict)


@contextmanager
def _uncollected() -> Iterator[None]:
    """The context in which Python does not search for objects that refer to each other in a circle.

    A file gives very many objects and no such circle. The search goes through them and all of torch again and again,
    which took a fifth of the time of reading.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()


def _from_text(file: CocoText, path: Path, images: Path | None, strict: bool) -> Dataset:
    """The data set of a file with plain lists, most of whose annotations have the usual form."""
    builder = DatasetBuilder(path, strict=strict, keypoint_shift=PIXEL_CENTRE)
    _add_categories(builder, file.categories, lambda: used_categories(file.annotations))
    _add_images(builder, file.images, images)
    file.images.clear()  # a tenth of the memory
    plain, others = read_annotations(file, builder.known(), builder.buffer)
    _add_annotations(builder, others, plain)
    return builder.build()


def _from_segment_anything(files: Sequence[Path], folder: Path, images: Path | None, strict: bool) -> Dataset:
    builder = DatasetBuilder(folder, strict=strict)
    content = of_segment_anything(of_jsons(builder, files, "a JSON of Segment Anything", _one_image))
    _add_categories(builder, content["categories"], set)
    _add_images(builder, content["images"], images, files[0])
    _add_annotations(builder, dict(enumerate(content["annotations"], start=1)))
    return builder.build()


def _one_image(builder: DatasetBuilder, file: Path, where: str, content: Any) -> list[Mapping[str, Any]]:
    if not isinstance(content, Mapping) or not isinstance(content.get("image"), Mapping):
        raise DataError("expected the image and its annotations, as in other files of the folder")
    return [content]


def from_content(content: Any, path: Path, images: Path | None = None, *, strict: bool = False) -> Dataset:
    """Like `read`, with the parsed content of the JSON at `path`."""
    content = plain_coco(content)
    if not isinstance(content, Mapping) or not all(isinstance(content.get(key), list) for key in _LISTS):
        found = type(content).__name__
        if isinstance(content, Mapping):
            found = (
                ", ".join(f"{key} ({type(value).__name__})" for key, value in list(content.items())[:6]) or "no keys"
            )
        raise DataError(f"{path}: expected COCO JSON, an object with lists {', '.join(_LISTS)}, found {found}")
    builder = DatasetBuilder(path, strict=strict, keypoint_shift=PIXEL_CENTRE)
    entries = content["annotations"]
    _add_categories(builder, content["categories"], lambda: {_category_id(entry) for entry in entries})
    _add_images(builder, content["images"], images)
    _add_annotations(builder, dict(enumerate(entries, start=1)))
    return builder.build()


def _category_id(entry: Any) -> int | str | None:
    return as_id(entry.get("category_id")) if isinstance(entry, Mapping) else None


def write(parts: Mapping[str, Dataset], folder: Path) -> Lost:
    """Writes `annotations.json` beside the images of each part. COCO JSON holds everything; ids become numbers."""
    for part, dataset in parts.items():
        write_json(_numbered(dataset), folder / part / "annotations.json")
    return Counter()


def write_json(dataset: Dataset, path: Path) -> None:
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
    annotations = coco_annotations(dataset)
    content = {"images": images, "annotations": annotations, "categories": categories}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _numbered(dataset: Dataset) -> Dataset:
    """The data set with numbers from 1 in the place of ids that are texts, which other programs refuse."""
    records, categories, columns = dataset.records, dataset.categories, dict(dataset.columns)
    if not all(isinstance(record.image_id, int) for record in records):
        records = Records(replace(record, image_id=number) for number, record in enumerate(records, start=1))
    if not all(isinstance(category.id, int) for category in categories):
        categories = tuple(replace(category, id=number) for number, category in enumerate(categories, start=1))
    if not isinstance(columns["ids"], Tensor):
        columns["ids"] = torch.arange(1, len(columns["ids"]) + 1)
    return replace(dataset, records=records, categories=categories, columns=columns)


def _add_categories(builder: DatasetBuilder, entries: Sequence[Any], used: Callable[[], Collection[Any]]) -> None:
    without_objects = classes_of_no_object(entries, used)
    for entry in entries:
        reason = without_objects.get(entry["id"]) if isinstance(entry, Mapping) and is_id(entry.get("id")) else None
        if reason is None:
            _add_category(builder, entry)
        else:
            builder.choice(f"a category is left out: {reason}")


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


def _add_images(builder: DatasetBuilder, entries: Sequence[Any], images: Path | None, file: Path | None = None) -> None:
    """Adds the images. `file` is the annotation file near which they are searched for, if it is not the path."""
    renamed, measured = [], 0
    for entry, place in zip(entries, _find_images(entries, file or builder.path, images), strict=True):
        size = _size_of_file(entry, place)
        measured += len(size) > 0
        _add_image(builder, {**entry, **size} if size else entry, place)
        if place.renamed:
            renamed.append(os.path.basename(place.path))
    if renamed:
        builder.choice(f"images found under another suffix than in the file: {len(renamed)}, first: {renamed[0]}")
    if measured:
        builder.choice(f"images without height and width, which are read from their files: {measured}")


def _size_of_file(entry: Any, place: FoundFile) -> dict[str, int]:
    """Height and width of an image whose entry says nothing of them, if its file can be read; else empty."""
    if not isinstance(entry, Mapping) or place.fault:
        return {}
    if entry.get("height") is not None or entry.get("width") is not None:
        return {}
    try:
        height, width = image_size(place.path)
    except ImageError:  # as for an image without a file, the entry is refused
        return {}
    return {"height": height, "width": width}


def _find_images(entries: Sequence[Any], path: Path, images: Path | None) -> list[FoundFile]:
    """The file of each image, under its `file_name` or else under its address, as LVIS needs it."""
    places = find_files([_file_name(entry) for entry in entries], path, images)
    lost = [
        (number, entry["coco_url"])
        for number, (entry, place) in enumerate(zip(entries, places, strict=True))
        if place.fault and isinstance(entry, Mapping) and isinstance(entry.get("coco_url"), str)
    ]
    for (number, _), place in zip(lost, find_files([url for _, url in lost], path, images), strict=True):
        places[number] = places[number] if place.fault else place
    return places


def _file_name(entry: Any) -> str:
    """The name of an image's file. The images of LVIS 1 have only an address."""
    if not isinstance(entry, Mapping):
        return ""
    names = (name for key in ("file_name", "coco_url") if isinstance(name := entry.get(key), str))
    return next(names, f"{entry.get('id')} (no file_name)")


def _add_image(builder: DatasetBuilder, entry: Any, place: FoundFile) -> None:
    if not isinstance(entry, Mapping):
        builder.problem(f"expected images as objects, found {short(entry)}")
        return
    fields = {key: value for key, value in entry.items() if key not in _IMAGE_KEYS}
    # Evaluation of results needs no image files, so an image without a file is kept. Only reading it fails.
    builder.add_image(entry.get("id"), place.path, entry.get("height"), entry.get("width"), fields, place.fault)


def _add_annotations(
    builder: DatasetBuilder, entries: Mapping[int, Any], plain: PlainAnnotations | None = None
) -> None:
    """Adds the entries by their numbers from 1, and those that were read as columns."""
    objects = [entry for entry in entries.values() if isinstance(entry, Mapping)]
    runs = [(as_id(e.get("category_id")), as_id(e.get("image_id")), e.get("iscrowd")) for e in objects if _has_runs(e)]
    others = {as_id(entry.get("category_id")) for entry in objects if not _has_runs(entry)}
    if plain:
        masked = plain.kinds == RUN_LENGTHS
        columns = (plain.category_ids[masked], plain.image_ids[masked], plain.crowd[masked])
        runs += zip(*(column.tolist() for column in columns), strict=True)
        others.update(plain.category_ids[~masked].tolist())
    false_crowds = classes_of_false_crowds(runs, others)
    if false_crowds:
        builder.choice(
            "masks with iscrowd 1 are read as objects, because whole classes are crowd regions, several in an image: "
            f"category {', '.join(sorted(map(str, false_crowds)))}"
        )
    if plain:
        crowd = np.where(np.isin(plain.category_ids, list(false_crowds)), 0, plain.crowd)
        builder.add_plain(replace(plain, crowd=crowd))
    masks = [entry.get("segmentation") if isinstance(entry, Mapping) else None for entry in entries.values()]
    for (number, entry), known in zip(entries.items(), known_areas(masks).tolist(), strict=True):
        _add_annotation(builder, number, entry, known, false_crowds)


def _has_runs(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("segmentation"), Mapping)


def _add_annotation(
    builder: DatasetBuilder, number: int, entry: Any, pixels: int, false_crowds: Collection[Any]
) -> None:
    if not isinstance(entry, Mapping):
        builder.problem(f"expected annotations as objects, found {short(entry)}")
        return
    mask, runs, category = entry.get("segmentation"), _has_runs(entry), entry.get("category_id")
    builder.add_annotation(
        RawAnnotation(
            entry.get("image_id"),
            category,
            entry.get("id"),
            entry.get("bbox"),
            polygons=None if runs else mask,
            rle=mask if runs else None,
            pixels=pixels,
            crowd=entry.get("iscrowd", 0) if as_id(category) not in false_crowds else 0,
            area=entry.get("area"),
            keypoints=None if entry.get("num_keypoints") == 0 else entry.get("keypoints"),
        ),
        number,
    )

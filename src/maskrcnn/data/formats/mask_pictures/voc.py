"""Reads the instance masks of Pascal VOC: `SegmentationObject` with one palette value for each object.

255 is a border and belongs to no object. The class of an object is the commonest value of its pixels in
`SegmentationClass`. The i-th value is also the i-th `<object>` of the XML, whose box is looser than the mask and is not
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.loading.of_each import of_each
from maskrcnn.data.pictures import (
    NO_CLASS,
    Picture,
    add_named_categories,
    add_picture,
    files_in,
    find_pictures,
    read_masks,
)
from maskrcnn.data.regions import as_drawn, label_image_to_rles
from maskrcnn.errors import DataError, ImageError
from maskrcnn.files.xml_file import read_xml
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE

name = "Pascal VOC instances"
key = "voc"
takes = frozenset({"split"})

_OBJECTS = ("SegmentationObject", "SegmentationObjectPNG")  # the second of labelme2voc
_CLASSES = ("SegmentationClass", "SegmentationClassPNG")
_BORDER = 255
_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class _Image(NamedTuple):
    """The objects of an image.

    Attributes:
        masks: the mask of each value.
        classes: the class number of each value; 0 if it is not known.
        names, difficult: of each object of the XML; empty without one.
        fault: what cannot be read.
    """

    masks: dict[int, RLE]
    classes: dict[int, int]
    names: list[str]
    difficult: list[bool]
    fault: str = ""


def recognise(path: Path) -> bool:
    """Whether a folder has pictures in `SegmentationObject`."""
    return path.is_dir() and bool(_masks(path))


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads Pascal VOC instances, also as labelme2voc writes them.

    Args:
        path: the folder that holds `SegmentationObject`.
        images: folder of the images; default: `JPEGImages`, or else they are searched for in `path`.
        strict: raise at the first broken mask, instead of leaving it out.
        hints: `split` is a list in `ImageSets/Segmentation`.

    Raises:
        DataError: there are no masks, or one is broken and `strict` is set.
    """
    masks = _masks(path)
    if hints.split is not None:
        masks = {stem: masks[stem] for stem in _listed(path, hints.split) if stem in masks}
    if not masks:
        raise DataError(f"{path}: expected masks of instances in {_OBJECTS[0]}, found none")
    builder = DatasetBuilder(path, strict=strict)
    usual = path / "JPEGImages"
    pictures = find_pictures(masks, path / _OBJECTS[0], images or (usual if usual.is_dir() else None))
    jobs = [(file, pictures[stem]) for stem, file in masks.items()]
    found = of_each(partial(_read_image, path), jobs, "label files")
    masked = [image for image in found if image.masks]
    classless = bool(masked) and not any(image.names or any(image.classes.values()) for image in masked)
    if classless:
        add_named_categories(builder, ())
        builder.choice(f"all objects are of one class, because neither {_CLASSES[0]} nor an XML says theirs")
    by_number = not classless and _add_classes(builder, path, found)
    difficult = 0
    for stem, image in zip(masks, found, strict=True):
        if image.fault:
            builder.problem(f"image {stem}: {image.fault}")
            continue
        if add_picture(builder, stem, pictures[stem], None) is None:
            continue
        for value, mask in image.masks.items():
            named = value <= len(image.names)
            unnamed = ONLY_CLASS if classless else None
            category = image.classes[value] if by_number else image.names[value - 1] if named else unnamed
            crowd = named and image.difficult[value - 1]
            difficult += crowd
            builder.add_annotation(RawAnnotation(stem, category, f"{stem}:{value}", crowd=crowd, draw=as_drawn(mask)))
    if difficult:
        builder.choice(f"{difficult} objects that are marked as difficult become crowd regions")
    return builder.build()


def _masks(path: Path) -> dict[str, Path]:
    """The pictures of instances by the name of their image."""
    return {file.stem: file for folder in _OBJECTS for file in files_in(path / folder, ".png")}


def _listed(path: Path, split: str) -> list[str]:
    """The names of the images of a part of the data set."""
    folder = path / "ImageSets" / "Segmentation"
    lists = {file.stem: file for file in files_in(folder, ".txt")}
    if split not in lists:
        raise DataError(f"{folder}: expected a list {split}.txt, found {', '.join(lists) or 'none'}")
    return lists[split].read_text("utf-8-sig", errors="replace").split()


def _read_image(path: Path, job: tuple[Path, Picture]) -> _Image:
    masks, picture = job
    try:
        values = read_masks(masks, picture)
        if values.ndim != 2:
            raise DataError(f"{masks}: expected a picture with a palette, found {values.shape[2]} channels")
        values = np.where(values == _BORDER, 0, values)
        ids, found = label_image_to_rles(values)
        classes = _classes_of(path, masks.stem, values, picture)
        names, difficult = _read_objects(path / "Annotations" / f"{masks.stem}.xml")
    except (ImageError, DataError) as error:
        return _Image({}, {}, [], [], str(error))
    return _Image(dict(zip(ids, found, strict=True)), classes, names, difficult)


def _classes_of(path: Path, stem: str, objects: np.ndarray, picture: Picture) -> dict[int, int]:
    """The class number of each value of `objects`: the commonest value of its pixels in `SegmentationClass`.

    Args:
        objects: (H, W) integers, 0 for none.
    """
    file = next((file for folder in _CLASSES if (file := path / folder / f"{stem}.png").is_file()), None)
    classes = np.zeros_like(objects) if file is None else read_masks(file, picture)
    if classes.shape != objects.shape:
        raise DataError(f"{file}: expected a picture of {objects.shape}, as the one of objects, found {classes.shape}")
    inside = objects > 0
    codes = objects[inside].astype(np.int64) << 32 | classes[inside]
    pairs, counts = np.unique(codes, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the commonest class of an object comes last, and stays
    return dict(zip((pairs[order] >> 32).tolist(), (pairs[order] & 0xFFFFFFFF).tolist(), strict=True))


def _read_objects(file: Path) -> tuple[list[str], list[bool]]:
    """The class of each object of an XML, and whether it is marked as difficult; nothing without the file."""
    if not file.is_file():
        return [], []
    objects = read_xml(file, "a Pascal VOC annotation").findall("object")
    names = [(entry.findtext("name") or "").strip() for entry in objects]
    return names, [(entry.findtext("difficult") or "").strip() == "1" for entry in objects]


def _add_classes(builder: DatasetBuilder, path: Path, images: Sequence[_Image]) -> bool:
    """Adds the classes, and returns whether their numbers are the values of `SegmentationClass`.

    The names come from labelme's `class_names.txt`, or are those of VOC. Other names in the XMLs have no numbers.
    """
    listed = path / "class_names.txt"
    used = {label for image in images for label in image.names}
    if not listed.is_file() and not used <= set(_NAMES):
        add_named_categories(builder, used - NO_CLASS)
        return False
    names: Sequence[str] = _NAMES
    if listed.is_file():
        lines = listed.read_text("utf-8-sig", errors="replace").splitlines()
        names = [line.strip() for line in lines if line.strip() not in ("", "__ignore__", "_background_")]
    for number, label in enumerate(names, start=1):
        builder.add_category(number, label)
    return True

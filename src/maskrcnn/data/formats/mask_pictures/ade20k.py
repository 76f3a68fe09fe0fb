"""Reads ADE20K as it was released in 2016, 2017 and 2021: `<name>_seg.png` beside each image.

Its class is red // 10 * 256 + green, and blue tells the objects of an image apart. The names of the classes come from
`<name>.json` (2021), or from the lines of `<name>_atr.txt` (2016 and 2017), which are in the order of blue. Files
`instance_*.png` show the same objects with their hidden parts, and are not needed. Parts of objects are left out.
Source: https://github.com/CSAILVision/ADE20K/blob/main/utils/utils_ade20k.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.formats.mask_pictures.segments import (
    Category,
    LabelledImage,
    Meaning,
    Segment,
    Segments,
    Source,
    any_below,
    coded_segments,
    images_below,
    missing,
    part_of,
    read_source,
)
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import Place
from maskrcnn.data.pictures import Picture, read_masks
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import json_outline, read_json
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import is_int, under

name = "ADE20K"
key = "ade20k"
takes = frozenset({"split", "missing"})

_SEGMENTS = "_seg"
_DEPTH = 6  # folders below: images, ADE, the part, the kind of scene, the scene


def recognise(path: Path) -> bool:
    """Whether a folder holds a picture of ADE20K, at most six folders below."""
    return path.is_dir() and any_below(path, is_segments, _DEPTH)


def is_segments(file: Path) -> bool:
    """Whether a picture `<name>_seg.png` holds classes and objects of ADE20K, and not a value for each object."""
    stem = file.stem.removesuffix(_SEGMENTS)
    if file.suffix.lower() != ".png" or file.stem == stem:
        return False
    beside = (file.with_name(f"{stem}_atr.txt"), file.with_name(f"{stem}_parts_1.png"))
    return any(other.exists() for other in beside) or _is_annotation(file.with_name(f"{stem}.json"))


def _is_annotation(file: Path) -> bool:
    outline = json_outline(file)
    return outline is not None and "annotation" in outline.keys[0] and "object" in outline.keys[1]


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads ADE20K.

    Args:
        path: the folder that holds the images, or a folder above.
        images: folder of the images, which may be in folders below; default: beside their pictures.
        strict: raise at the first broken picture, instead of leaving it out.
        hints: `split` and `missing` are used.

    Raises:
        DataError: there are no pictures of ADE20K, or one is broken and `strict` is set.
    """
    # A folder of the name of an image has the pictures of its single objects.
    files = list(images_below(path, lambda name, beside: f"{name}{_SEGMENTS}.png" in beside))
    labels = {
        file.with_name(file.stem.removesuffix(_SEGMENTS)): file for file in files if file.stem.endswith(_SEGMENTS)
    }
    parts = [file for file in files if "_parts_" in file.stem]
    rest = set(files).difference(parts, labels.values())
    pictures = {file.with_suffix(""): file for file in files if file in rest}
    elsewhere = {file.stem: file for file in images_below(images)} if images else {}
    found = []
    for stem in dict.fromkeys((*labels, *pictures)):
        file = elsewhere.get(stem.name) or pictures.get(stem)
        image = missing(stem.with_suffix(".jpg")) if file is None else Place(file)
        found.append(LabelledImage(stem.name, image, labels.get(stem), part_of(stem, path)))
    add = partial(_add_classes, parts=bool(parts))
    return read_source(path, Source(found, _read_labels, add), strict=strict, hints=hints)


def _add_classes(builder: DatasetBuilder, used: Mapping[Category, str], parts: bool) -> None:
    """Adds the classes by the first of their names, or by all of them if two classes have the same first name."""
    first = {number: label.partition(",")[0].strip() for number, label in used.items()}
    times = Counter(first.values())
    for number, label in used.items():
        builder.add_category(number, (first[number] if times[first[number]] == 1 else label) or f"class {number}")
    if parts:
        builder.choice("parts of objects are left out, and only whole objects are read")


def _read_labels(file: Path, picture: Picture) -> Segments:
    values = read_masks(file, picture)
    if values.ndim != 3 or values.shape[2] < 3:
        raise DataError(f"{file}: expected red, green and blue, found {values.ndim} dimensions of {values.dtype}")
    red, green, blue = np.moveaxis(values[..., :3].astype(np.int32), 2, 0)
    segments = coded_segments((red // 10 * 256 + green) * 256 + blue, lambda code: [Meaning(code // 256)])
    try:
        names = _names(file.with_name(file.stem.removesuffix(_SEGMENTS)), segments.found)
    except DataError as error:
        return segments._replace(faults=[f"the names of its classes are not known: {error}"])
    return segments._replace(found=[own._replace(name=names.get(own.own, "")) for own in segments.found])


def _names(stem: Path, found: Sequence[Segment]) -> dict[int | str, str]:
    """The names of the classes of objects, by the code of the object, as far as the files beside the image say them."""
    if stem.with_suffix(".json").is_file():
        return _names_of_json(stem.with_suffix(".json"), found)
    lines = stem.with_name(f"{stem.name}_atr.txt")
    return _names_of_lines(lines, found) if lines.is_file() else {}


def _names_of_json(file: Path, found: Sequence[Segment]) -> dict[int | str, str]:
    entries = under(read_json(file, "an annotation of ADE20K"), "annotation", "object")
    if not isinstance(entries, list):
        raise DataError(f"{file}: expected annotation with a list object, found none")
    numbered = [(under(entry, "name_ndx"), under(entry, "name")) for entry in entries]
    names = {number: label for number, label in numbered if is_int(number) and isinstance(label, str)}
    return {own.own: names[own.category] for own in found if own.category in names}


def _names_of_lines(file: Path, found: Sequence[Segment]) -> dict[int | str, str]:
    """Each line holds number, part level, whether it is hidden, names of the class, name as written, attributes.

    The k-th value of blue is the object of number k. If objects are hidden, only small values of blue tell the number.
    """
    rows = [line.split("#") for line in file.read_text("utf-8-sig", errors="replace").splitlines()]
    whole = {int(row[0]): row[3].strip() for row in rows if len(row) > 3 and row[1].strip() == "0" and _is_number(row)}
    blues = sorted({int(own.own) % 256 for own in found} - {0})
    if len(blues) == len(whole):
        numbers = {blue: number for number, blue in zip(sorted(whole), blues, strict=True)}
    else:
        numbers = {blue: blue for blue in blues if blues[-1] <= len(whole)}
    return {own.own: whole.get(numbers.get(int(own.own) % 256, 0), "") for own in found}


def _is_number(row: Sequence[str]) -> bool:
    return row[0].strip().isdecimal()

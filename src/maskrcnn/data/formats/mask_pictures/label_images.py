"""Reads label images: one picture beside each image, in which every object has its own value or colour.

The background is 0 and what is below, or black, or the commonest colour of a picture without black. Layouts: a folder
of images and a folder of labels with the same names, or labels with a suffix, in another folder or beside the images
(Cellpose, StarDist, Omnipose, PennFudan), `_seg.npy` of Cellpose, and the sequences of the Cell Tracking Challenge.
There is one class, unless a file `classes.csv` gives the class of each value.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.formats.mask_pictures.ade20k import is_segments
from maskrcnn.data.formats.mask_pictures.cellpose import SUFFIX, read_seg
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import Place
from maskrcnn.data.loading.of_each import of_each
from maskrcnn.data.pictures import (
    Picture,
    add_named_categories,
    add_picture,
    add_unlabelled,
    has_suffix,
    image_files_in,
    open_picture,
    read_masks,
)
from maskrcnn.data.regions import as_drawn, connected_parts, label_image_to_rles
from maskrcnn.data.writing import Holds, Lost, new_file, objects_to_write
from maskrcnn.errors import DataError, ImageError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.csv_table import csv_rows
from maskrcnn.files.images import IMAGE_SUFFIXES
from maskrcnn.structures.annotations import Annotations
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE

name = "label images"
key = "label-images"
image_folder = "images"
takes = frozenset({"parts", "missing"})
holds: Holds = frozenset()

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "raw", "pngimages", "jpegimages")  # in any case
_LABEL_FOLDERS = ("masks", "mask", "labels", "label", "gt", "pedmasks")
_SUFFIX = re.compile(r"(?:_cp_masks|_masks?|_labels?|_seg)$", re.IGNORECASE)
_IMAGE_SUFFIX = re.compile(r"_(?:img|image)$", re.IGNORECASE)  # of an image beside its label image
_JPEG = (".jpg", ".jpeg")
_CLASSES, _COLUMNS = "classes.csv", ("image", "value", "class")
_MOST_IDS = (1 << 16) - 1  # of 16 bits
_LEAST_PIXELS = 4  # of an object, on average
_MOST_CLASSES = 30  # values of all pictures together that may still be classes


class _Pair(NamedTuple):
    """A label image and the image that it belongs to."""

    id: str
    image: Path
    labels: Path


class _Labels(NamedTuple):
    """The objects of a label image, or why it cannot be read."""

    ids: list[int]
    masks: list[RLE]
    fault: str = ""


def recognise(path: Path) -> bool:
    """Whether a folder has pairs of images and label images. Beside `instances`, `labels` has classes."""
    classes = (path / "instances").is_dir() and (path / "labels").is_dir()
    return path.is_dir() and not classes and bool(_pairs(path, None)[0])


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads a folder of label images.

    Args:
        path: the folder that holds the images and the label images, in folders of their own or side by side.
        images: folder of the images, if `path` holds only the label images.
        strict: raise at the first broken label image, instead of leaving its image out.
        hints: `format` says that pictures of few values are label images; `parts` and `missing` are used.

    Raises:
        DataError: there are no pairs, the pictures look like masks of classes, or one is broken and `strict` is set.
    """
    pairs, rest = _pairs(path, images)
    if not pairs:
        folders = f"{'|'.join(_IMAGE_FOLDERS)} with {'|'.join(_LABEL_FOLDERS)}"
        raise DataError(f"{path}: expected images with label images ({folders}, or names with _masks), found no pair")
    builder = DatasetBuilder(path, strict=strict)
    classes = _read_classes(path)
    if classes is None:
        builder.add_category(1, ONLY_CLASS)
    else:
        add_named_categories(builder, classes.values())
    pictures = of_each(open_picture, [Place(pair.image) for pair in pairs], "images")
    found = of_each(
        _read_labels, [(pair.labels, picture) for pair, picture in zip(pairs, pictures, strict=True)], "label files"
    )
    if classes is None and not hints.parts and hints.format != key:
        _refuse_classes(path, [own for own, pair in zip(found, pairs, strict=True) if pair.labels.suffix != ".npy"])
    for pair, labels, picture in zip(pairs, found, pictures, strict=True):
        number = pair.id
        if labels.fault:
            builder.problem(f"image {number}: {labels.fault}")
            continue
        if add_picture(builder, number, picture, None) is None:
            continue
        for own, mask in zip(labels.ids, labels.masks, strict=True):
            category = 1 if classes is None else classes.get((number, own))
            for part, piece in enumerate(connected_parts(mask) if hints.parts else [mask]):
                own_id = f"{number}:{own}" if not hints.parts else f"{number}:{own}.{part}"
                builder.add_annotation(RawAnnotation(number, category, own_id, draw=as_drawn(piece)))
    add_unlabelled(builder, rest, hints.missing)
    return builder.build()


def write(parts: Mapping[str, Dataset], folder: Path) -> Lost:
    """Writes a picture of ids for each image in `masks`, and the classes of the ids in `classes.csv`.

    Ids count from 1 in each image. A later object covers an earlier one, and one of a higher score one of a lower.
    """
    lost: Lost = Counter()
    for part, dataset in parts.items():
        with (
            atomic_write(folder / part / _CLASSES) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            rows = csv.writer(file)
            rows.writerow(_COLUMNS)
            for index, record in enumerate(dataset.records):
                annotations = dataset.annotations(index)
                numbers = objects_to_write(annotations, holds, lost)
                if annotations.scores is not None:
                    numbers.sort(key=annotations.scores.__getitem__)
                picture = _picture(annotations, numbers, lost)
                suffix = ".png" if len(numbers) <= _MOST_IDS else ".tif"
                Image.fromarray(picture).save(new_file(folder / part / "masks" / f"{record.path.stem}{suffix}"))
                names = [dataset.categories[annotations.labels[number]].name for number in numbers]
                rows.writerows([record.path.stem, value, name] for value, name in enumerate(names, start=1))
    return lost


def _picture(annotations: Annotations, numbers: Sequence[int], lost: Lost) -> np.ndarray:
    """(H, W) uint16, or int32 for more ids, of the objects from 1 on."""
    picture = np.zeros(annotations.image_hw, dtype=np.uint16 if len(numbers) <= _MOST_IDS else np.int32)
    for value, (bitmap, (x, y)) in enumerate(annotations.crops(numbers), start=1):
        place = picture[y : y + bitmap.shape[0], x : x + bitmap.shape[1]]
        inside = bitmap != 0
        lost["{pixel|pixels} of objects {is|are} covered by other objects"] += int(np.count_nonzero(place[inside]))
        place[inside] = value
    shown = np.unique(picture)
    lost["{object is|objects are} covered entirely"] += len(numbers) - len(shown[shown > 0])
    return picture


def _read_classes(path: Path) -> dict[tuple[str, int], str] | None:
    """The class of each id of each image, as `write` writes it; None without the file."""
    file = path / _CLASSES
    if not file.is_file():
        return None
    found = {}
    for line, cells in csv_rows(file):
        if line > 1:
            if len(cells) != len(_COLUMNS) or not cells[1].isdecimal():
                raise DataError(f"{file}: line {line}: expected {', '.join(_COLUMNS)}, found {', '.join(cells)}")
            found[cells[0], int(cells[1])] = cells[2]
    return found


def _pairs(path: Path, images: Path | None) -> tuple[list[_Pair], list[Path]]:
    """The pairs of a folder, and the images without a label image."""
    if not path.is_dir():
        return [], []
    if sequences := _tracked(path):
        return sequences
    below = {folder.name.lower(): folder for folder in path.iterdir() if folder.is_dir()}
    image_folder = images or next((below[name] for name in _IMAGE_FOLDERS if name in below), None)
    label_folder = next((below[name] for name in _LABEL_FOLDERS if name in below), path if images else None)
    if image_folder is not None and label_folder is not None:
        stems = _below(label_folder)
        files = {_SUFFIX.sub("", stem): file for stem, file in stems.items()} | stems
        pictures = {stem: file for stem, file in _below(image_folder).items() if not file.name.endswith(SUFFIX)}
    else:
        both = image_files_in(image_folder or path)
        labels = [*sorted((image_folder or path).glob(f"*{SUFFIX}")), *both]  # of two for an image, the picture
        files = {stem: file for file in labels if (stem := _SUFFIX.sub("", file.stem)) != file.stem}
        files = {stem: file for stem, file in files.items() if not is_segments(file)}
        pictures = {_IMAGE_SUFFIX.sub("", file.stem): file for file in both if not _SUFFIX.search(file.stem)}
    paired = [_Pair(stem, file, files[stem]) for stem, file in pictures.items() if stem in files]
    return paired, [file for stem, file in pictures.items() if stem not in files]


def _below(folder: Path) -> dict[str, Path]:
    """The image files and the files of Cellpose in a folder and below, by their paths without suffix."""
    found = [file for file in folder.rglob("*") if has_suffix(file.name, (*IMAGE_SUFFIXES, SUFFIX))]
    files = sorted(found, key=lambda file: (not file.name.endswith(SUFFIX), file))  # of two for an image, the picture
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def _tracked(path: Path) -> tuple[list[_Pair], list[Path]] | None:
    """The pairs of the Cell Tracking Challenge: `01/t000.tif` and `01_GT/SEG/man_seg000.tif`, or `01_ST` without those.

    Frames have markers in `01_GT/TRA`, too, which are no masks.
    """
    pairs, rest = [], []
    for sequence in sorted(folder for folder in path.iterdir() if folder.name.isdecimal() and folder.is_dir()):
        folders = [path / f"{sequence.name}_{kind}" / "SEG" for kind in ("GT", "ST")]
        labels = {
            number[0]: file
            for folder in reversed([folder for folder in folders if folder.is_dir()])  # gold covers silver
            for file in image_files_in(folder)
            if (number := re.search(r"\d+$", file.stem))
        }
        for file in image_files_in(sequence) if labels else []:
            number = re.search(r"\d+$", file.stem)
            if number and number[0] in labels:
                pairs.append(_Pair(f"{sequence.name}/{file.stem}", file, labels[number[0]]))
            else:
                rest.append(file)
    return (pairs, rest) if pairs else None


def _read_labels(job: tuple[Path, Picture]) -> _Labels:
    path, picture = job
    if path.suffix.lower() in _JPEG:
        return _Labels([], [], f"{path.name}: a JPEG changes the values of a label image; save it as PNG or TIFF")
    try:
        values = read_seg(path, picture) if path.name.endswith(SUFFIX) else read_masks(path, picture)
    except (ImageError, DataError) as error:
        return _Labels([], [], str(error))
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.trunc(values)).all()):
        return _Labels([], [], f"{path.name}: expected whole numbers as ids, found fractions")
    if values.ndim == 3 and values.shape[2] not in (3, 4):
        return _Labels([], [], f"{path.name}: expected grey values or colours, found {values.shape[2]} channels")
    if values.ndim == 2:
        numbers = np.maximum(values.astype(np.int64) if values.dtype.kind == "f" else values, 0)
    else:
        red, green, blue = np.moveaxis(values[..., :3].astype(np.int32), 2, 0)
        numbers = red + 256 * green + 65536 * blue
    found, counts = np.unique(numbers, return_counts=True)
    if len(found) * _LEAST_PIXELS > numbers.size:
        return _Labels([], [], f"{path.name}: expected a value for each object, found {len(found)}, as in a photograph")
    background = 0 if found[0] == 0 or values.ndim == 2 else int(found[np.argmax(counts)])
    return _Labels(*label_image_to_rles(numbers, background))


def _refuse_classes(path: Path, found: Sequence[_Labels]) -> None:
    """Refuses pictures whose values are probably classes: one in all pictures, or the same few in several."""
    values = {tuple(labels.ids) for labels in found if labels.ids}
    every = set().union(*values)
    same_few = len(every) <= _MOST_CLASSES and len(values) == 1 and len(found) > 2
    if len(every) == 1 or same_few:
        shown = ", ".join(str(value) for value in sorted(every)[:5])
        raise DataError(
            f"{path}: expected a value of its own for each object, found only {shown} in all of "
            f"{len(found)}, which may be masks of classes; say --format {key} if each value is one object, or --parts "
            "if each connected part is one"
        )

"""Reads and writes masks with one file for each object.

Layouts: the folders `<image>/images` and `<image>/masks` of the Data Science Bowl 2018, `masks/<image>/*.png` beside
`images`, and files that are named `<image>_<class>_<number>.png` beside a folder of images (pycococreator). Nonzero
pixels, not counting an alpha channel, are the object.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.formats.mask_pictures.ade20k import is_segments
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import Place
from maskrcnn.data.loading.of_each import of_each
from maskrcnn.data.pictures import (
    Picture,
    add_named_categories,
    add_picture,
    add_unlabelled,
    image_files_in,
    open_picture,
    read_masks,
)
from maskrcnn.data.regions import as_drawn, connected_parts, foreground
from maskrcnn.data.writing import Holds, Lost, new_file, objects_to_write, with_names
from maskrcnn.errors import DataError, ImageError
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE

name = "masks with one file an object"
key = "object-masks"
image_folder = "images"
takes = frozenset({"parts", "missing"})
holds: Holds = frozenset()

_NAMED = re.compile(r"(.+)_(?!m0\w+_\d{8}$)([^_]+)_(\d+)")  # Open Images has masks `<image>_m0<class>_<8 signs>`
_UNNAMEABLE = re.compile(r"""[_/\\:*?"<>|\x00-\x1f]""")  # in the class of such a name, on any system


class _Masked(NamedTuple):
    """An image and its masks, each with a class."""

    id: str
    image: Path
    masks: list[tuple[Path, str]]


def recognise(path: Path) -> bool:
    """Whether a folder has one of the layouts."""
    return path.is_dir() and (any(_bowl(path)) or bool(_masks_in_folders(path)[0]) or bool(_named_masks(path)[0]))


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads and writes masks with one file for each object.

    Args:
        path: the folder of the images' folders (Data Science Bowl), or the one that holds masks and images.
        images: folder of the images; not for the layout of the Data Science Bowl.
        strict: raise at the first broken mask, instead of leaving it out.
        hints: `parts` and `missing` are used.

    Raises:
        DataError: there are no masks, or one is broken and `strict` is set.
    """
    found, rest = _masks_in_folders(path, images)
    if not found and (found := list(_bowl(path))):
        rest = [file for folder in sorted(path.iterdir()) for file in _unmasked(folder)]
    if not found:
        found, rest = _named_masks(path, images)
    if not found:
        raise DataError(
            f"{path}: expected folders <image>/images and <image>/masks, folders masks/<image> beside images, or masks "
            "<image>_<class>_<number>.png beside a folder of images, found none of these"
        )
    builder = DatasetBuilder(path, strict=strict)
    add_named_categories(builder, (label for masked in found for _, label in masked.masks))
    pictures = of_each(open_picture, [Place(masked.image) for masked in found], "images")
    usable = [
        (masked, picture)
        for masked, picture in zip(found, pictures, strict=True)
        if add_picture(builder, masked.id, picture, None) is not None
    ]
    jobs = [(file, picture) for masked, picture in usable for file, _ in masked.masks]
    masks = iter(of_each(_read_mask, jobs, "masks"))
    for masked, _ in usable:
        for (file, label), mask in zip(masked.masks, masks, strict=False):
            if isinstance(mask, ImageError):
                builder.problem(f"image {masked.id}: {mask}")
                continue
            for number, part in enumerate(connected_parts(mask) if hints.parts else [mask]):
                own = f"{masked.id}:{file.stem}" + (f".{number}" if hints.parts else "")
                builder.add_annotation(RawAnnotation(masked.id, label, own, draw=as_drawn(part)))
    add_unlabelled(builder, rest, hints.missing)
    return builder.build()


def write(parts: Mapping[str, Dataset], folder: Path) -> Lost:
    """Writes `annotations/<image>_<class>_<number>.png` for each object, with 255 inside, beside the images.

    Names of classes get `-` in the place of characters that cannot be in such a name, and a number where they would
    become the same.
    """
    lost: Lost = Counter()
    for part, given in parts.items():
        dataset = with_names(given, _UNNAMEABLE, "a file name", lost)
        for index, record in enumerate(dataset.records):
            annotations = dataset.annotations(index)
            numbers = objects_to_write(annotations, holds, lost)
            lost["{image|images} without objects can only be read with --missing empty"] += not numbers
            digits = len(str(len(annotations)))  # so that sorted names are in the order of the objects of a class
            for number, mask in zip(numbers, map(annotations.rle, numbers), strict=True):
                label = dataset.categories[annotations.labels[number]].name
                file = f"{record.path.stem}_{label}_{number:0{digits}}.png"
                picture = Image.fromarray(mask.dense().astype(np.uint8) * 255)
                picture.save(new_file(folder / part / "annotations" / file), "PNG")
    return lost


def _bowl(path: Path) -> Iterator[_Masked]:
    """The images of the Data Science Bowl's layout. `path` may also be the folder of a single image."""
    if not path.is_dir():
        return
    for folder in [path, *sorted(path.iterdir())]:
        if not (folder / "masks").is_dir() or not (folder / "images").is_dir():
            continue
        pictures = image_files_in(folder / "images")
        masks = image_files_in(folder / "masks")
        # A mask with the name of its image is a label image.
        if len(pictures) == 1 and {_stem(file) for file in masks} != {pictures[0].stem}:
            yield _Masked(pictures[0].stem, pictures[0], [(file, ONLY_CLASS) for file in masks])


def _masks_in_folders(path: Path, images: Path | None = None) -> tuple[list[_Masked], list[Path]]:
    """The images that have a folder of masks, `masks/<image>`, and the other images."""
    pictures = image_files_in(images or path / "images")
    masks = {picture: image_files_in(path / "masks" / picture.stem) for picture in pictures}
    found = [_Masked(picture.stem, picture, [(file, ONLY_CLASS) for file in masks[picture]]) for picture in pictures]
    return [one for one in found if one.masks], [one.image for one in found if not one.masks]


def _unmasked(folder: Path) -> list[Path]:
    """The images of a folder of the Data Science Bowl that has no masks, as in its test set."""
    pictures = folder / "images"
    return image_files_in(pictures) if pictures.is_dir() and not (folder / "masks").is_dir() else []


def _stem(file: Path) -> str:
    return re.sub(r"_masks?$", "", file.stem)


def _named_masks(path: Path, images: Path | None = None) -> tuple[list[_Masked], list[Path]]:
    """The images with masks `<image>_<class>_<number>.png` in another folder or beside them, and those without."""
    folders = [path, *sorted(folder for folder in path.iterdir() if folder.is_dir())] if path.is_dir() else []
    files = [file for folder in folders for file in image_files_in(folder)]
    stems = {file.stem for file in files} | {file.stem for file in (image_files_in(images) if images else ())}
    masks = [
        (file, match)
        for file in files
        if file.suffix.lower() == ".png" and (match := _NAMED.fullmatch(file.stem)) and match[1] in stems
    ]
    own = {file for file, _ in masks}
    pictures = {file.stem: file for file in (image_files_in(images) if images else files) if file not in own}
    by_image: dict[str, list[tuple[Path, str]]] = {}
    for file, match in masks:
        if match[1] in pictures and not is_segments(file.with_name(f"{match[1]}_seg.png")):
            by_image.setdefault(match[1], []).append((file, match[2]))
    found = [_Masked(stem, file, by_image[stem]) for stem, file in pictures.items() if stem in by_image]
    return found, [file for stem, file in pictures.items() if found and stem not in by_image]


def _read_mask(job: tuple[Path, Picture]) -> RLE | ImageError:
    path, picture = job
    try:
        values = read_masks(path, picture)
    except ImageError as error:
        return error
    return RLE.from_dense(foreground(values))

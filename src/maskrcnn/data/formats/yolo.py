"""Reads YOLO segmentation: a text file of polygons for each image, and a YAML that names the folders and the classes.

A row is `class x y x y ...`, in fractions of the upright image. The label file of `.../images/a.jpg` is
`.../labels/a.txt`. Tools join the parts and holes of an object by bridges of no width, there and back; COCO's way of
drawing leaves them out, because it counts crossings.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import Place
from maskrcnn.data.pictures import in_threads, open_picture
from maskrcnn.data.regions import flat
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.files.images import IMAGE_SUFFIXES
from maskrcnn.files.plain_yaml import read_yaml
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import is_int, short

name = "YOLO segmentation"
key = "yolo"
takes = frozenset({"split", "missing"})

_PAIR = ("images", "labels")
_SPLITS = ("train", "val", "valid", "test")
_OUTSIDE = 0.01  # of the image, by which tools place points beyond its border
_MOST_BYTES = 1 << 26  # of a label file


@dataclass
class _Labels:
    """The content of a label file.

    Attributes:
        present: whether the file exists.
        objects: line, class and (n, 2) points in fractions of the image.
        boxes, doubles: lines with a box, and with what another line says, too.
        faults: what is wrong with the other lines.
    """

    present: bool = True
    objects: list[tuple[int, int, np.ndarray]] = field(default_factory=list)
    boxes: list[int] = field(default_factory=list)
    doubles: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class _Image(NamedTuple):
    """An image file, its label file, which may be missing, and the part of the data set that it belongs to."""

    path: Path
    labels: Path
    split: str


def recognise(path: Path) -> bool:
    """Whether a file, or a file in a folder, is a YAML with class names, or a folder has images and label files."""
    if path.is_dir():
        return bool(_yamls(path)) or any(_has_labels(folder) for _, folder in _folders(path))
    return path.suffix.lower() in (".yaml", ".yml") and _has_names(path)


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads a YOLO segmentation data set.

    Args:
        path: the YAML, the folder that holds it, or a folder with `images` and `labels`.
        images: folder of the images, in place of the folders that the YAML names.
        strict: raise at the first broken row, instead of leaving it out.
        hints: `split` and `missing` are used. An image without a label file is empty unless `missing` is "leave-out".

    Raises:
        DataError: there are no images or only boxes, or a row is broken and `strict` is set.
    """
    file = _only_yaml(path)
    home = file.parent if file else path
    builder = DatasetBuilder(file or path, strict=strict)
    content = _read_yaml(file) if file else {}
    found = _images(content, home, images)
    splits = Counter(image.split for image in found)
    if hints.split is not None:
        found = [image for image in found if image.split == hints.split]
    elif len(splits) > 1:
        builder.choice(f"parts: {', '.join(f'{split} {n}' for split, n in splits.items())}; --split reads only one")
    if not found:
        parts = (
            f"in the part {hints.split}, which has none of the parts {', '.join(splits)}" if hints.split else "in it"
        )
        raise DataError(f"{builder.path}: expected images {parts}, found none")
    files = in_threads(_read_labels, [image.labels for image in found])
    if not any(labels.objects for labels in files) and any(labels.boxes for labels in files):
        raise DataError(f"{builder.path}: expected rows of a class and a polygon, found only boxes (5 numbers a row)")
    _add_classes(builder, content, home, files)
    _add_images(builder, found, files, home, hints.missing)
    return builder.build()


def _has_names(file: Path) -> bool:
    try:
        content = read_yaml(file)
    except ConfigError:
        return False
    return isinstance(content, Mapping) and "names" in content and bool(content.keys() & {"path", *_SPLITS})


def _yamls(folder: Path) -> list[Path]:
    return [file for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]) if _has_names(file)]


def _only_yaml(path: Path) -> Path | None:
    """The YAML of a data set; None for a folder of images and labels without one."""
    found = _yamls(path) if path.is_dir() else [path]
    if len(found) > 1:
        raise DataError(
            f"{path}: expected one YAML with names, found {', '.join(f.name for f in found)}; name the file"
        )
    return found[0] if found else None


def _read_yaml(file: Path) -> Mapping[str, Any]:
    try:
        content = read_yaml(file)
    except ConfigError as error:
        raise DataError(str(error)) from None
    if not isinstance(content, Mapping):
        raise DataError(f"{file}: expected names and folders of images, found {short(content)}")
    return content


def _images(content: Mapping[str, Any], home: Path, images: Path | None) -> list[_Image]:
    """The images of the folders and lists that the YAML names, else of the usual folders; each once."""
    if images is not None:
        sources = [("", images)]
    elif content:
        sources = [
            (split, source)
            for split in _SPLITS
            for entry in _entries(content.get(split))
            for source in _resolved(entry, content.get("path"), home)
        ]
    else:
        sources = [(split, folder / "images") for split, folder in _folders(home)]
    found: dict[Path, _Image] = {}
    for split, source in sources:
        for file in _listed(source):
            found.setdefault(file, _Image(file, _label_file(file), "val" if split == "valid" else split))
    return list(found.values())


def _entries(value: Any) -> list[str]:
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str)]


def _resolved(entry: str, root: Any, home: Path) -> list[Path]:
    """The folder or list that an entry of the YAML names: the first that exists.

    Roboflow writes `../train/images` although the folder is beside the YAML, and a `path` may be of another machine.
    """
    bare = entry
    while bare.startswith("../"):
        bare = bare[3:]
    roots = [home / root] if isinstance(root, str) else []
    tried = [base / text for text in (entry, bare) for base in (*roots, home)]
    return [path for path in tried if path.exists()][:1]


def _folders(path: Path) -> list[tuple[str, Path]]:
    """The folders with `images` and `labels` in the layouts without a YAML, each with its part of the data set."""
    named = [(split, path / split) for split in _SPLITS if (path / split).is_dir()]
    return [(split, folder) for split, folder in [("", path), *named] if all((folder / f).is_dir() for f in _PAIR)]


def _has_labels(folder: Path) -> bool:
    return any((folder / "labels").rglob("*.txt"))


def _listed(source: Path) -> list[Path]:
    """The images of a folder and the folders below, or of a text file with one path in each line."""
    if source.is_dir():
        return sorted(file for file in source.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    lines = source.read_text("utf-8-sig", errors="replace").splitlines()
    return [source.parent / line.strip() for line in lines if line.strip()]


def _label_file(image: Path) -> Path:
    """The label file: `labels` in place of the last folder `images`, or beside the image."""
    before, found, after = os.fspath(image).rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{before}{os.sep}labels{os.sep}{after}" if found else image).with_suffix(".txt")


def _read_labels(path: Path) -> _Labels:
    try:
        content = path.read_bytes()
    except OSError:
        return _Labels(present=False)
    if len(content) > _MOST_BYTES:
        return _Labels(
            faults=[f"{path.name}: expected a label file of at most {_MOST_BYTES} bytes, found {len(content)}"]
        )
    rows = [row.split() for row in content.decode("utf-8-sig", errors="replace").splitlines()]
    labels, seen = _Labels(), set()
    for line, cells in enumerate(rows, start=1):
        if not cells:
            continue
        if tuple(cells) in seen:
            labels.doubles.append(line)
        elif len(cells) == 5:
            labels.boxes.append(line)
        else:
            try:
                labels.objects.append((line, *_row(cells)))
            except DataError as error:
                labels.faults.append(f"{path.name}: line {line}: {error}")
        seen.add(tuple(cells))
    return labels


def _row(cells: Sequence[str]) -> tuple[int, np.ndarray]:
    """The class and the (n, 2) points of a row, in fractions of the image."""
    try:
        numbers = np.array(cells, dtype=np.float64)
    except ValueError:
        raise DataError(f"expected a class and fractions of the image, found {short(' '.join(cells))}") from None
    if len(numbers) < 7 or len(numbers) % 2 == 0 or not np.isfinite(numbers).all() or numbers[0] != int(numbers[0]):
        raise DataError(f"expected a class and 3 or more points x y, found {len(numbers)} numbers")
    points = numbers[1:].reshape(-1, 2)
    if points.min() < -_OUTSIDE or points.max() > 1 + _OUTSIDE:
        raise DataError(f"expected fractions from 0 to 1, found {points.min():g} to {points.max():g}")
    return int(numbers[0]), points.clip(0, 1)


def _add_classes(builder: DatasetBuilder, content: Mapping[str, Any], home: Path, files: Sequence[_Labels]) -> None:
    """Adds the classes of the YAML or of a `classes.txt`; numbers without a name are their own names."""
    names = content.get("names")
    listed = home / "classes.txt"
    if names is None and listed.is_file():
        names = listed.read_text("utf-8-sig", errors="replace").split("\n")
        names = [line.strip() for line in names if line.strip()]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is None:
        names = {number: number for number in sorted({number for file in files for _, number, _ in file.objects})}
    if not isinstance(names, Mapping) or not all(is_int(number) for number in names):
        raise DataError(f"{builder.path}: expected names as a list, or as numbers with names, found {short(names)}")
    for number, label in names.items():
        builder.add_category(number, str(label))


def _add_images(
    builder: DatasetBuilder, found: Sequence[_Image], files: Sequence[_Labels], home: Path, missing: str | None
) -> None:
    stems = Counter(image.path.stem for image in found)
    kept = [
        (image, labels) for image, labels in zip(found, files, strict=True) if labels.present or missing != "leave-out"
    ]
    lost = sum(not labels.present for labels in files)
    if lost:
        done = "left out" if missing == "leave-out" else "read as empty; --missing leave-out leaves them out"
        builder.choice(f"{lost} images have no label file and are {done}")
    doubles, boxes = (sum(len(getattr(labels, field)) for labels in files) for field in ("doubles", "boxes"))
    if doubles:
        builder.choice(f"{doubles} rows are left out, because they repeat a row of the same image")
    if boxes:
        builder.problem(f"{boxes} rows are left out, because they are boxes (5 numbers) and not polygons")
    for (image, labels), picture in zip(kept, in_threads(open_picture, [Place(i.path) for i, _ in kept]), strict=True):
        relative = Path(os.path.relpath(image.path.with_suffix(""), home)).as_posix()
        number = image.path.stem if stems[image.path.stem] == 1 else relative
        for fault in labels.faults:
            builder.problem(fault)
        if picture.size is None:
            builder.problem(f"image {number}: {picture.path}: expected an image, found {picture.fault}")
            continue
        height, width = picture.size
        builder.add_image(number, picture.path, height, width, {"split": image.split} if image.split else {})
        for line, category, points in labels.objects:
            polygon = flat(points * (width, height))
            builder.add_annotation(RawAnnotation(number, category, f"{number}:{line}", polygons=[polygon]))

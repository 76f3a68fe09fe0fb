"""Reads YOLO segmentation: a text file of polygons for each image, and a YAML that names the folders and the classes.

A row is `class x y x y ...`, in fractions of the upright image. The label file of `.../images/a.jpg` is
`.../labels/a.txt`. Tools join the parts and holes of an object by bridges of no width, there and back; COCO's way of
drawing leaves them out, because it counts crossings.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import Place, is_inside, root_of
from maskrcnn.data.loading.of_each import of_each
from maskrcnn.data.pictures import files_in, has_suffix, open_picture
from maskrcnn.data.regions import flat
from maskrcnn.data.writing import Holds, Lost, new_file
from maskrcnn.data.yolo_rows import Labels, read_labels, rows_of
from maskrcnn.errors import ConfigError, DataError, counted, omission
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.images import IMAGE_SUFFIXES
from maskrcnn.files.plain_yaml import read_yaml
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import is_int, short

name = "YOLO segmentation"
key = "yolo"
image_folder = "images"
takes = frozenset({"split", "missing"})
holds: Holds = frozenset()

_PAIR = ("images", "labels")
_SPLITS = ("train", "val", "valid", "test")
_WAY_OUT = "; move the YAML to the images, or name their folder with --images"


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
        images: folder of the images, in place of the folders that the YAML names. These folders, and the images in
            lists, lie no further than one level above the folder of the YAML.
        strict: raise at the first broken row, instead of leaving it out.
        hints: `split` and `missing` are used. An image without a label file is empty unless `missing` is "leave-out".

    Raises:
        DataError: there are no images or only boxes, or a row is broken and `strict` is set.
    """
    file = _only_yaml(path)
    home = file.parent if file else path
    builder = DatasetBuilder(file or path, strict=strict)
    content = _read_yaml(file) if file else {}
    found, unused = _images(content, home, images)
    splits = Counter(image.split for image in found)
    if hints.split is not None:
        found = [image for image in found if image.split == hints.split]
    elif len(splits) > 1:
        builder.choice(f"parts: {', '.join(f'{split} {n}' for split, n in splits.items())}; --split reads only one")
    for other in [] if file else _unreadable(path):
        builder.problem(f"{other}, so that the classes have only their numbers")
    for fault in unused if found else []:
        builder.choice(fault)
    if not found:
        parts = (
            f"in the part {hints.split}, which has none of the parts {', '.join(splits)}" if hints.split else "in it"
        )
        why = "".join(f"; {fault}" for fault in unused[:3])
        raise DataError(f"{builder.path}: expected images {parts}, found none{why}")
    files = of_each(read_labels, [image.labels for image in found], "label files")
    if not any(labels.objects for labels in files) and any(labels.boxes for labels in files):
        raise DataError(f"{builder.path}: expected rows of a class and a polygon, found only boxes (5 numbers a row)")
    _add_classes(builder, content, home, files)
    _add_images(builder, found, files, home, hints.missing)
    return builder.build()


def write(parts: Mapping[str, Dataset], folder: Path) -> Lost:
    """Writes `data.yaml`, and a label file for each image, which is empty if the image has no object.

    Polygons of one part stay as they are. Other masks become polygons along the edges of their pixels.
    """
    lost: Lost = Counter()
    for dataset in parts.values():
        for index, record in enumerate(dataset.records):
            rows = rows_of(dataset.annotations(index), holds, lost)
            file = new_file(_label_file(record.path))
            file.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    names = [category.name for dataset in list(parts.values())[:1] for category in dataset.categories]
    places = {part: f"{part}/images".lstrip("/") for part in parts}
    # Ultralytics wants both.
    used = {"train": next(iter(places.values())), "val": next(iter(places.values()))} | {
        part: place for part, place in places.items() if part
    }
    with atomic_write(folder / "data.yaml") as temporary:
        temporary.write_text(yaml.safe_dump({**used, "names": names}, sort_keys=False, allow_unicode=True), "utf-8")
    return lost


def _has_names(file: Path) -> bool:
    try:
        content = read_yaml(file)
    except ConfigError:
        return False
    return isinstance(content, Mapping) and "names" in content and bool(content.keys() & {"path", *_SPLITS})


def _yamls(folder: Path) -> list[Path]:
    return [file for file in files_in(folder, ".yaml", ".yml") if _has_names(file)]


def _unreadable(folder: Path) -> list[str]:
    """Why YAMLs in a folder cannot be read."""
    reasons = []
    for file in files_in(folder, ".yaml", ".yml"):
        try:
            read_yaml(file)
        except ConfigError as error:
            reasons.append(str(error))
    return reasons


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


def _images(content: Mapping[str, Any], home: Path, images: Path | None) -> tuple[list[_Image], list[str]]:
    """The images of the folders and lists that the YAML names, else of the usual folders; each once.

    Returns:
        the images, and what the YAML names in vain.
    """
    unused = []
    if images is not None:
        sources = [("", images)]
    elif content:
        sources = []
        for split, entry in ((part, entry) for part in _SPLITS for entry in _entries(content.get(part))):
            tried = _resolved(entry, content.get("path"), home)
            there = [path for path in tried if path.exists()]
            sources += [(split, path) for path in there[:1]]
            if not there:
                unused.append(f"{split}: found no {entry} below {root_of(home)}, so it is left out{_WAY_OUT}")
    else:
        sources = [(split, folder / "images") for split, folder in _folders(home)]
    root = root_of(images or home)
    found: dict[Path, _Image] = {}
    for split, source in sources:
        files = _listed(source)
        inside = [file for file in files if is_inside(file, root)]
        if outside := len(files) - len(inside):
            unused.append(f"{source}: {omission(outside, 'image')}, outside of {root}{_WAY_OUT}")
        for file in inside:
            found.setdefault(file, _Image(file, _label_file(file), "val" if split == "valid" else split))
    return list(found.values()), unused


def _entries(value: Any) -> list[str]:
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str)]


def _resolved(entry: str, root: Any, home: Path) -> list[Path]:
    """Where the folder or list that an entry of the YAML names may be, inside the root of the data set.

    Roboflow writes `../train/images` although the folder is beside the YAML, and a `path` may be of another machine.
    """
    bare = entry
    while bare.startswith("../"):
        bare = bare[3:]
    roots = [home / root] if isinstance(root, str) else []
    tried = [base / text for text in (entry, bare) for base in (*roots, home)]
    return [path for path in tried if is_inside(path, root_of(home))]


def _folders(path: Path) -> list[tuple[str, Path]]:
    """The folders with `images` and `labels` in the layouts without a YAML, each with its part of the data set."""
    named = [(split, path / split) for split in _SPLITS if (path / split).is_dir()]
    return [(split, folder) for split, folder in [("", path), *named] if all((folder / f).is_dir() for f in _PAIR)]


def _has_labels(folder: Path) -> bool:
    return any((folder / "labels").rglob("*.txt"))


def _listed(source: Path) -> list[Path]:
    """The images of a folder and the folders below, or of a text file with one path in each line."""
    if source.is_dir():
        return sorted(file for file in source.rglob("*") if has_suffix(file.name, IMAGE_SUFFIXES))
    lines = source.read_text("utf-8-sig", errors="replace").splitlines()
    return [_of_line(line.strip(), source.parent) for line in lines if line.strip()]


def _of_line(line: str, home: Path) -> Path:
    """The image of a line in a list, without its first folders if the file is only there: CVAT writes `data/` before
    all, and other tools the folders of their machine."""
    folders = line.replace("\\", "/").split("/")
    tails = (home / "/".join(folders[start:]) for start in range(len(folders)))
    return next((tail for tail in tails if tail.is_file()), home / line)


def _label_file(image: Path) -> Path:
    """The label file: `labels` in place of the last folder `images`, or beside the image."""
    before, found, after = os.fspath(image).rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{before}{os.sep}labels{os.sep}{after}" if found else image).with_suffix(".txt")


def _add_classes(builder: DatasetBuilder, content: Mapping[str, Any], home: Path, files: Sequence[Labels]) -> None:
    """Adds the classes of the YAML or of a `classes.txt`; numbers without a name are their own names."""
    names = content.get("names")
    listed = next((file for file in (home / "classes.txt", home / "labels" / "classes.txt") if file.is_file()), None)
    if names is None and listed is not None:
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
    builder: DatasetBuilder, found: Sequence[_Image], files: Sequence[Labels], home: Path, missing: str | None
) -> None:
    stems = Counter(image.path.stem for image in found)
    kept = [
        (image, labels) for image, labels in zip(found, files, strict=True) if labels.present or missing != "leave-out"
    ]
    lost = sum(not labels.present for labels in files)
    if lost:
        done = "left out" if missing == "leave-out" else "read as empty; --missing leave-out leaves such images out"
        builder.choice(f"{counted(lost, 'image')} without a label file: {done}")
    doubles, boxes = (sum(len(getattr(labels, field)) for labels in files) for field in ("doubles", "boxes"))
    if doubles:
        builder.choice(f"{omission(doubles, 'row')}, because the same row of the image is there before")
    if boxes:
        builder.problem(f"{omission(boxes, 'row')}: boxes (5 numbers) and no polygons")
    pictures = of_each(open_picture, [Place(image.path) for image, _ in kept], "images")
    for (image, labels), picture in zip(kept, pictures, strict=True):
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

"""COCO JSON as flat arrays: images, annotations and categories, checked once when the file is read.

Annotations stay in a few arrays and one buffer of bytes, so that loader processes share their memory however many
there are (`records.py`). Raw ids live here and in `evaluation`; everywhere else labels are 0-based.

Legend: N annotations of one image, T of the data set, K keypoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import Category
from maskrcnn.data.annotation import (
    NO_MASK,
    POLYGONS,
    RUN_LENGTHS,
    Row,
    is_id,
    is_int,
    read_annotation,
    short,
    unpack_polygons,
)
from maskrcnn.data.records import PackedBytes, Record, Records, ids_of, pack_ids
from maskrcnn.errors import ConfigError, DataError, ImageError
from maskrcnn.files.images import read_image
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.ops.rle import crop_to_rle, decode_many, runs_to_crop
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.keypoints import keypoint_names
from maskrcnn.structures.masks import RLE, Masks, known_areas


@dataclass(frozen=True)
class Annotations:
    """The annotations of one image, N of them, in original pixels.

    Attributes:
        ids: (N,) int64, or object where some are not whole numbers of 64 bits; as in the JSON.
        boxes: (N, 4) float32 x1 y1 x2 y2.
        labels: (N,) int64, 0-based.
        crowd: (N,) bool.
        has_mask: (N,) bool.
    """

    ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    has_mask: np.ndarray


@dataclass(frozen=True)
class CocoDataset:
    """A data set read by `load_coco`.

    Attributes:
        path: the JSON file.
        records: its images.
        categories: sorted by id; a label is a position in it.
        problems: what was skipped, one sentence each.
    """

    path: Path
    records: Records
    categories: tuple[Category, ...]
    problems: tuple[str, ...]
    _ids: Tensor | np.ndarray = field(repr=False)
    _boxes: Tensor = field(repr=False)
    _labels: Tensor = field(repr=False)
    _crowd: Tensor = field(repr=False)
    _kinds: Tensor = field(repr=False)  # (T,) uint8
    _segmentations: PackedBytes = field(repr=False)  # RLE strings, and polygons as `annotation.py` packs them
    _keypoints: Tensor | None = field(repr=False)  # (T, K, 3) float32

    def __len__(self) -> int:
        return len(self.records)

    def subset(self, indices: Sequence[int]) -> CocoDataset:
        """The same data set with only some of its images."""
        return replace(self, records=Records(self.records[i] for i in indices))

    def annotations(self, index: int) -> Annotations:
        """The annotations of image number `index`."""
        record = self.records[index]
        rows = slice(record.first, record.first + record.count)
        return Annotations(
            ids_of(self._ids[rows]),
            self._boxes[rows].numpy(),
            self._labels[rows].numpy(),
            self._crowd[rows].numpy(),
            self._kinds[rows].numpy() != NO_MASK,
        )

    def keypoints(self, index: int) -> np.ndarray | None:
        """(N, K, 3) float32 x, y, visibility (0 not labelled, 1 hidden, 2 visible) of the annotations of an image, in
        continuous original pixels; zeros where nothing is labelled. None when no category names keypoints."""
        record = self.records[index]
        rows = slice(record.first, record.first + record.count)
        return None if self._keypoints is None else self._keypoints[rows].numpy()

    def crop(self, index: int, number: int) -> tuple[np.ndarray, tuple[int, int]]:
        """The mask of annotation `number` of an image: (h, w) uint8 bitmap of its tight box and the original pixel
        (x, y) of its top left corner; a filled box where there is no mask."""
        if self.annotations(index).has_mask[number]:
            return self.rle(index, number).crop()
        record = self.records[index]
        x1, y1, x2, y2 = _pixel_box(self._boxes[record.first + number].numpy(), (record.height, record.width))
        return np.ones((y2 - y1, x2 - x1), dtype=np.uint8), (x1, y1)

    def crops(self, index: int, numbers: Sequence[int] | np.ndarray) -> list[tuple[np.ndarray, tuple[int, int]]]:
        """The masks of several annotations of an image, as `crop` gives them but (0, 0) where there is no mask."""
        has_mask = self.annotations(index).has_mask
        found = [(np.zeros((0, 0), dtype=np.uint8), (0, 0))] * len(numbers)
        masked = [place for place, number in enumerate(numbers) if has_mask[number]]
        runs, sizes, _ = decode_many([self.rle(index, int(numbers[place])).counts for place in masked])
        ends = np.cumsum(sizes)
        for place, start, end in zip(masked, ends - sizes, ends, strict=True):
            found[place] = runs_to_crop(runs[start:end], self.records[index].height)
        return found

    def rle(self, index: int, number: int) -> RLE:
        """The mask of annotation `number` of an image as run lengths."""
        record = self.records[index]
        row = record.first + number
        size = (record.height, record.width)
        content = self._segmentations[row]
        if self._kinds[row] == RUN_LENGTHS:
            return RLE(size, content.tobytes())
        if self._kinds[row] == POLYGONS:
            return RLE(size, polygons_to_rle(unpack_polygons(content), size))
        return RLE(size, crop_to_rle(*self.crop(index, number), size))

    def instances(self, index: int) -> Instances:
        """The objects of an image without its crowd regions, with score 1: for drawing."""
        record, annotations = self.records[index], self.annotations(index)
        objects = np.flatnonzero(~annotations.crowd)
        labels = annotations.labels[objects]
        keypoints = self.keypoints(index)
        return Instances(
            image_hw=(record.height, record.width),
            boxes=annotations.boxes[objects],
            scores=np.ones(len(objects), dtype=np.float32),
            labels=labels,
            masks=Masks([self.rle(index, int(i)) for i in objects], (record.height, record.width)),
            names=tuple(self.categories[label].name for label in labels),
            keypoints=None if keypoints is None else keypoints[objects],
            categories=self.categories,
        )

    def read(self, index: int) -> np.ndarray:
        """The (H, W, 3) uint8 image number `index`.

        Raises:
            ImageError: the file cannot be read, or its size is not the record's.
        """
        record = self.records[index]
        image = read_image(record.path)
        if image.shape[:2] != (record.height, record.width):
            raise ImageError(
                f"{record.path}: expected {record.width} x {record.height} pixels as {self.path.name} says of image "
                f"{record.image_id}, found {image.shape[1]} x {image.shape[0]}; correct the JSON or the file"
            )
        return image


def find_json(path: Path) -> Path:
    """The COCO JSON that a path means: the file itself, or the one of a folder.

    Raises:
        DataError: there is none, or more than one.
    """
    if not path.is_dir():
        return path
    found = [path / "annotations.json"] if (path / "annotations.json").is_file() else sorted(path.glob("*.json"))
    if len(found) != 1:
        listed = ", ".join(p.name for p in found[:5]) or "none"
        raise DataError(f"{path}: expected one COCO JSON in the folder, found {listed}; name the file itself")
    return found[0]


def load_coco(
    path: Path | str, images: Path | None = None, *, strict: bool = False, content: Mapping[str, Any] | None = None
) -> CocoDataset:
    """Reads a COCO JSON and checks every annotation.

    Segmentations may be polygons of several parts, compressed or uncompressed RLE, or missing. Boxes that are
    missing are derived from the masks. Keypoints are read where the category of an annotation names some, half a
    pixel added (`PIXEL_CENTRE`). A broken annotation or image entry is skipped and listed in `problems`.

    Args:
        path: the JSON, or a folder that holds one.
        images: folder of the images; by default the folder named like the JSON, else `images` beside it, else COCO's
            own (`annotations/instances_val2017.json` and `val2017/`), else the JSON's own folder.
        strict: refuse the file at its first broken entry.
        content: of the file, if `read_json` has read it already.

    Raises:
        DataError: the file cannot be used at all, or `strict` and something in it is broken.
    """
    path = find_json(Path(path))
    content = read_json(path) if content is None else content
    categories = _read_categories(path, content["categories"])
    category_of = {category.id: (label, category) for label, category in enumerate(categories)}
    problems = _Problems(strict)
    folder = images or _image_folder(path)
    entries = _read_images(path, content["images"], folder, problems)
    rows: dict[Any, list[Row]] = {image_id: [] for image_id in entries}
    seen: set[Any] = set()
    areas = known_areas([a.get("segmentation") if isinstance(a, Mapping) else None for a in content["annotations"]])
    for annotation, area in zip(content["annotations"], areas.tolist(), strict=True):
        try:
            image_id, row = read_annotation(path, annotation, entries, category_of, seen, area)
        except DataError as error:
            problems.add(str(error))
        else:
            rows[image_id].append(row)
    return _flatten(path, entries, rows, categories, tuple(problems.found))


class _Problems:
    """Collects what is skipped; raises at once when strict."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.found: list[str] = []

    def add(self, message: str) -> None:
        if self.strict:
            raise DataError(message)
        self.found.append(message)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a COCO JSON.

    Raises:
        DataError: the file cannot be read, or lacks images, annotations or categories.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected a COCO JSON") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(
            f"{path}: expected a COCO JSON or a folder that holds one, found a file that is no text"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); the file may be truncated") from None
    lacking = ["images", "annotations", "categories"]
    if isinstance(content, dict):
        lacking = [key for key in lacking if not isinstance(content.get(key), list)]
    if lacking:
        found = f"keys {', '.join(list(content)[:6])}" if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"{path}: expected COCO JSON, an object with lists images, annotations and categories, found {found}"
        )
    if not content["images"]:
        raise DataError(f"{path}: the data set is empty, expected at least one entry in images")
    if not content["categories"]:
        raise DataError(f"{path}: no categories, expected at least one with id and name")
    return content


def _read_categories(path: Path, entries: list[Any]) -> tuple[Category, ...]:
    """Sorted by id."""
    found: dict[int, Category] = {}
    for entry in entries:
        if not isinstance(entry, Mapping) or not is_int(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise DataError(f"{path}: expected categories with an integer id and a name, found {short(entry)}")
        if entry["id"] in found:
            raise DataError(f"{path}: two categories have id {entry['id']}: give each its own")
        try:
            names, skeleton = _read_skeleton(entry)
            found[entry["id"]] = Category(entry["id"], entry["name"], names, skeleton)
        except (ConfigError, DataError) as error:
            raise DataError(f"{path}: {error}") from None
    categories = tuple(found[number] for number in sorted(found))
    counts = {len(category.keypoints): category.name for category in categories if category.keypoints}
    if len(counts) > 1:
        listed = " and ".join(f"{count} of {name}" for count, name in counts.items())
        raise DataError(
            f"{path}: expected as many keypoints in every category that has some, found {listed}; the network gives "
            "every class the same number"
        )
    return categories


def _read_skeleton(entry: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """The names of the keypoints and the limbs, which COCO counts from 1, as pairs of positions from 0."""
    names, limbs = keypoint_names(entry), entry.get("skeleton") or []
    if not isinstance(limbs, list) or not all(
        isinstance(limb, list) and len(limb) == 2 and all(is_int(end) and 1 <= end <= len(names) for end in limb)
        for limb in limbs
    ):
        raise DataError(
            f"category {entry['name']}: expected skeleton as pairs of keypoints numbered 1..{len(names)}, "
            f"found {short(limbs)}"
        )
    return names, tuple((start - 1, end - 1) for start, end in limbs)


def _image_folder(path: Path) -> Path:
    split = path.stem.rpartition("_")[2]
    for folder in (path.with_suffix(""), path.parent / "images", path.parent.parent / split):
        if folder.is_dir():
            return folder
    return path.parent


def _read_images(path: Path, entries: list[Any], folder: Path, problems: _Problems) -> dict[Any, tuple[Path, int, int]]:
    found: dict[Any, tuple[Path, int, int]] = {}
    for entry in entries:
        image_id = entry.get("id") if isinstance(entry, Mapping) else None
        if not is_id(image_id) or not isinstance(entry.get("file_name"), str):
            problems.add(f"{path}: expected images with id and file_name, found {short(entry)}")
            continue
        size = entry.get("height"), entry.get("width")
        if not all(is_int(side) and side > 0 for side in size):
            problems.add(f"{path}: image {image_id}: expected a positive integer height and width, found {size}")
            continue
        if image_id in found:
            raise DataError(f"{path}: two images have id {image_id}: annotations cannot be told apart")
        found[image_id] = (folder / entry["file_name"], *size)
    if not found:
        raise DataError(f"{path}: none of the {len(entries)} image entries can be used; first: {problems.found[0]}")
    return found


def _flatten(
    path: Path,
    entries: Mapping[Any, tuple[Path, int, int]],
    rows: Mapping[Any, list[Row]],
    categories: tuple[Category, ...],
    problems: tuple[str, ...],
) -> CocoDataset:
    records: list[Record] = []
    everything: list[Row] = []
    for image_id, (file, height, width) in entries.items():
        own = rows[image_id]
        records.append(Record(image_id, file, height, width, len(everything), len(own)))
        everything.extend(own)
    count = max(len(category.keypoints) for category in categories)
    none = np.zeros((count, 3), dtype=np.float32)  # of an annotation whose category has no keypoints
    points = [none if row.keypoints is None else row.keypoints for row in everything]
    return CocoDataset(
        path=path,
        records=Records(records),
        categories=categories,
        problems=problems,
        _ids=pack_ids([row.id for row in everything]),
        _boxes=torch.tensor([row.edges for row in everything], dtype=torch.float32).reshape(-1, 4),
        _labels=torch.tensor([row.label for row in everything], dtype=torch.int64),
        _crowd=torch.tensor([row.crowd for row in everything], dtype=torch.bool),
        _kinds=torch.tensor([row.kind for row in everything], dtype=torch.uint8),
        _segmentations=PackedBytes([row.content for row in everything]),
        _keypoints=torch.from_numpy(np.array(points, dtype=np.float32).reshape(-1, count, 3)) if count else None,
    )


def _pixel_box(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels that a box touches, at least one."""
    x1, y1 = min(int(box[0]), size[1] - 1), min(int(box[1]), size[0] - 1)
    return x1, y1, max(x1 + 1, math.ceil(box[2])), max(y1 + 1, math.ceil(box[3]))

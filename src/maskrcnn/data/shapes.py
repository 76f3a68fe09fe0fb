"""A generated data set of textured, overlapping shapes on textured backgrounds, as image files and COCO JSON.

Classes differ only in their outline: colours, textures, sizes and rotations have the same distribution for all. Every
image depends only on seed, split, size and its number.

Legend: S side of the image, h and w of a crop.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from maskrcnn.errors import DataError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.structures.keypoints import PIXEL_CENTRE
from maskrcnn.structures.masks import RLE

CLASSES = ("circle", "rectangle", "triangle", "star", "ring")
KEYPOINTS = ("top", "right", "bottom", "left")  # of every class: the extreme points of its outline

_MAX_OBJECTS = 8
_EMPTY = 0.04  # fraction of images without an object
_RADIUS = (0.085, 0.24)  # range of the radius of the circle around a shape, as a fraction of S
_VISIBLE = 0.3  # minimum visible fraction; a shape that is more hidden or outside is removed
_SUPERSAMPLING = 4  # of outlines, for soft edges
_CONTRAST = 55  # minimum distance between the mean colours of a shape and the background, RGB 0..255


@dataclass(frozen=True)
class Shape:
    """One complete shape, including parts that other shapes hide.

    Attributes:
        label: position in `CLASSES`.
        outline: (n, 2) float64 x y in pixels; the outer edge of a ring.
        coverage: (h, w) float32, the covered fraction of each pixel in a crop.
        origin_xy: the pixel of the image at the crop's top left corner.
        full_area: area in pixels, including parts outside the image.
    """

    label: int
    outline: np.ndarray
    coverage: np.ndarray
    origin_xy: tuple[int, int]
    full_area: float

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the crop in the image."""
        (x, y), (h, w) = self.origin_xy, self.coverage.shape
        return slice(y, y + h), slice(x, x + w)


def write_shapes(
    out_dir: Path, split: str, count: int, *, size: int = 160, seed: int = 0, keypoints: bool = False
) -> Path:
    """Writes the images `<out_dir>/<split>/000001.png`... and then `<out_dir>/<split>.json`.

    A left-right flip swaps the keypoints named left and right, but nothing swaps top and bottom. Train keypoints
    without `augment.flip_vertical` and `augment.quarter_turns`, as in keypoint_rcnn_tiny.

    Args:
        count: number of images.
        size: their side in pixels.
        seed: the same seed, split and size give the same files, byte for byte.
        keypoints: whether the annotations have `KEYPOINTS`; the images do not depend on it.

    Returns:
        the path of the JSON.

    Raises:
        DataError: `count` is below 1, or `size` is not in 32..4096.
    """
    if count < 1 or not 32 <= size <= 4096:
        raise DataError(f"expected 1 or more images of 32 to 4096 pixels, found count {count} and size {size}")
    target, folder = Path(out_dir) / f"{split}.json", Path(out_dir) / split
    target.unlink(missing_ok=True)  # it is written last, so that a JSON never names missing images
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        rng = np.random.default_rng([seed, zlib.crc32(split.encode()), number])
        image, objects = draw_shapes(size, rng, keypoints)
        name = f"{number:06d}.png"
        Image.fromarray(image).save(folder / name, compress_level=1)
        images.append({"id": number, "file_name": name, "width": size, "height": size})
        for entry in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, **entry})
    keypoint_names = {"keypoints": KEYPOINTS} if keypoints else {}
    content = {
        "info": {"description": f"Generated shapes, split {split}, seed {seed}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name, **keypoint_names} for label, name in enumerate(CLASSES)],
    }
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
    return target


def draw_shapes(
    size: int, rng: np.random.Generator, keypoints: bool = False
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """One image, (S, S, 3) uint8, and the COCO annotations of its objects: category_id, bbox, area and segmentation;
    with `keypoints`, also keypoints and num_keypoints.

    A mask is the visible part of a shape: a polygon if all of the shape is visible and has no hole, else run lengths.
    Keypoints are those of the whole outline.
    """
    number = 0 if rng.random() < _EMPTY else int(rng.integers(1, _MAX_OBJECTS + 1))
    shapes = [_shape(size, rng) for _ in range(number)]
    owners = _owners(shapes, size)
    shapes = [s for i, s in enumerate(shapes) if np.count_nonzero(owners == i) >= _VISIBLE * s.full_area]
    owners = _owners(shapes, size)  # again, because removed shapes hide nothing
    image = _texture((size, size), _colour(rng, most_saturation=0.5), 40.0, rng)
    ground = image.mean(axis=(0, 1))
    for shape in shapes:
        part = image[shape.window]
        surface = _texture(part.shape[:2], _colour(rng, apart_from=ground), 30.0, rng)
        part += shape.coverage[..., None] * (surface - part)
    annotations = [_annotation(shape, owners == i) for i, shape in enumerate(shapes)]
    if keypoints:
        for i, annotation in enumerate(annotations):
            annotation |= _keypoints(shapes[i], owners > i)
    return _photograph(image, rng), annotations


def _owners(shapes: list[Shape], size: int) -> np.ndarray:
    """(S, S) int64, the position of the visible shape at each pixel; -1 for background. Later shapes lie on top."""
    owners = np.full((size, size), -1)
    for i, shape in enumerate(shapes):
        owners[shape.window][shape.coverage >= 0.5] = i
    return owners


def _annotation(shape: Shape, visible: np.ndarray) -> dict[str, Any]:
    size = (visible.shape[0], visible.shape[1])
    # A polygon is exact only if no part of the shape is hidden or outside the image, and it has no hole.
    whole = np.count_nonzero(visible) == np.count_nonzero(shape.coverage >= 0.5)
    inside = shape.outline.min() >= 0 and shape.outline.max() <= size[0]
    segmentation: Any
    if whole and inside and CLASSES[shape.label] != "ring":
        outline = shape.outline.round(2)
        rle = RLE(size, polygons_to_rle([outline], size))
        segmentation = [outline.ravel().tolist()]
    else:
        rle = RLE.from_dense(visible)
        segmentation = rle.to_coco()
    x1, y1, x2, y2 = rle.box.tolist()
    return {
        "category_id": shape.label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": rle.area,
        "segmentation": segmentation,
    }


def _keypoints(shape: Shape, hidden: np.ndarray) -> dict[str, Any]:
    """`KEYPOINTS` of a shape in COCO's notation, in pixel indices; zeros for those outside the image.

    Visibility is 1 where a later shape lies on top, given by `hidden`, (S, S) bool, and 2 elsewhere. It is read one
    pixel inside the shape: the pixel at the tip may be mostly background, or belong to a touching neighbour.
    """
    x, y = shape.outline.T
    points = shape.outline[[y.argmin(), x.argmax(), y.argmax(), x.argmin()]]
    inside = np.all((points >= 0) & (points < len(hidden)), axis=1)
    # The line from a keypoint to the mean of the corners stays inside all of these outlines.
    inwards = shape.outline.mean(axis=0) - points
    steps = points + inwards / np.linalg.norm(inwards, axis=1, keepdims=True)
    columns, rows = np.floor(steps).astype(int).clip(0, len(hidden) - 1).T
    visibility = np.where(hidden[rows, columns], 1, 2)
    places = (points - PIXEL_CENTRE).round(2)
    numbers: list[float] = []
    for place, v, shown in zip(places.tolist(), visibility.tolist(), inside.tolist(), strict=True):
        numbers += (*place, v) if shown else (0, 0, 0)
    return {"keypoints": numbers, "num_keypoints": int(inside.sum())}


def _shape(size: int, rng: np.random.Generator) -> Shape:
    label = int(rng.integers(len(CLASSES)))
    radius = size * math.exp(rng.uniform(math.log(_RADIUS[0]), math.log(_RADIUS[1])))
    centre = rng.uniform(0.06 * size, 0.94 * size, 2)
    outline = centre + radius * _turned(_unit_outline(CLASSES[label], rng), rng.uniform(0, 2 * math.pi))
    hole = centre + rng.uniform(0.45, 0.62) * (outline - centre) if CLASSES[label] == "ring" else None
    # Draw the bounding box of the outline, even beyond the border, and then crop it to the image.
    x1, y1 = np.floor(outline.min(axis=0)).astype(int).tolist()
    x2, y2 = np.ceil(outline.max(axis=0)).astype(int).tolist()
    fine = Image.new("L", ((x2 - x1) * _SUPERSAMPLING, (y2 - y1) * _SUPERSAMPLING))
    pen = ImageDraw.Draw(fine)
    for points, value in ((outline, 255), (hole, 0)):
        if points is not None:
            corners = (points - (x1, y1)) * _SUPERSAMPLING - 0.5  # in PIL, integers are pixel centres
            pen.polygon([tuple(corner) for corner in corners.tolist()], fill=value)
    coverage = np.asarray(fine.reduce(_SUPERSAMPLING), dtype=np.float32) / 255
    left, top = max(0, -x1), max(0, -y1)
    seen = coverage[top : size - y1, left : size - x1]
    return Shape(label, outline, seen, (x1 + left, y1 + top), float(coverage.sum()))


def _unit_outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """(n, 2) points on or in the unit circle."""
    if name == "rectangle":
        corner = rng.uniform(0.5, 0.785)  # its angle; pi / 4 gives a square
        x, y = math.cos(corner), math.sin(corner)
        return np.array([(x, y), (-x, y), (-x, -y), (x, -y)])
    if name == "triangle":
        angles = np.array([0, 2, 4]) * math.pi / 3 + rng.uniform(-0.25, 0.25, 3)
        radii = np.ones(3)
    elif name == "star":
        angles = np.arange(10) * math.pi / 5
        radii = np.where(np.arange(10) % 2, rng.uniform(0.4, 0.52), 1.0)
    else:
        angles = np.arange(48) * math.pi / 24
        radii = np.ones(48)
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _colour(
    rng: np.random.Generator, apart_from: np.ndarray | None = None, most_saturation: float = 0.85
) -> np.ndarray:
    """(3,) float RGB in 0..255 of a random hue, neither black nor white, at least `_CONTRAST` from `apart_from`."""
    while True:
        hue, saturation, value = rng.uniform(0, 6), rng.uniform(0.1, most_saturation), rng.uniform(0.3, 0.95)
        wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
        colour = 255 * value * (1 - saturation + saturation * wheel)
        if apart_from is None or np.linalg.norm(colour - apart_from) >= _CONTRAST:
            return colour


def _texture(size_hw: tuple[int, int], colour: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """(h, w, 3) float32 RGB: a random pattern between two tints of a colour, with noise."""
    h, w = size_hw
    tint = rng.normal(0, strength, 3) * 0.5 + rng.normal(0, strength)
    pattern = _pattern(h, w, rng)
    grain = rng.standard_normal((h, w, 1), dtype=np.float32) * rng.uniform(0, 9)
    flat = (colour - tint / 2).astype(np.float32)
    return flat + pattern[..., None] * tint.astype(np.float32) + grain


def _pattern(h: int, w: int, rng: np.random.Generator) -> np.ndarray:
    """(h, w) float32, roughly in 0..1: plain, a gradient, stripes, checks or clouds."""
    kind = ("plain", "gradient", "stripes", "checks", "clouds")[rng.integers(5)]
    if kind == "plain":
        return np.full((h, w), 0.5, dtype=np.float32)
    if kind == "clouds":
        cells = int(rng.integers(3, 9))
        coarse = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        return np.asarray(coarse.resize((w, h), Image.Resampling.BICUBIC))
    angle = rng.uniform(0, 2 * math.pi)
    x = np.arange(w, dtype=np.float32) - w / 2
    y = np.arange(h, dtype=np.float32)[:, None] - h / 2
    along = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    if kind == "gradient":
        return along / np.float32(max(h, w)) + np.float32(0.5)
    across = y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))
    rate = np.float32(2 * math.pi / rng.uniform(6, 22))  # the period is 6 to 22 pixels
    wave = np.sin(along * rate + np.float32(rng.uniform(0, 6)))
    if kind == "checks":
        wave = wave * np.sin(across * rate)
    return np.clip(np.float32(0.5) + wave * np.float32(rng.uniform(0.5, 2)), 0, 1)


def _photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds effects of a camera to an (S, S, 3) float32 image: uneven light, slight blur, noise; returns uint8."""
    size = len(image)
    slope = rng.uniform(-0.12, 0.12, 2)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    light = 1 + ramp[:, None] * np.float32(slope[0]) + ramp * np.float32(slope[1])
    lit = np.clip(image * light[..., None], 0, 255).astype(np.uint8)
    blurred = Image.fromarray(lit).filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(1, 5)
    return np.clip(np.asarray(blurred, dtype=np.float32) + noise + 0.5, 0, 255).astype(np.uint8)

"""A generated data set: textured shapes over textured grounds, hiding one another, as image files and COCO JSON.

Nothing but the outline tells the classes apart: colours, textures, sizes and turns are drawn from the same
distribution for all of them. Every image depends on (seed, split, its number) alone.

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

_MOST_OBJECTS = 8
_EMPTY = 0.04  # of the images have no object
_RADIUS = (0.085, 0.24)  # of the circle around a shape, in parts of S
_VISIBLE = 0.3  # a shape of which less is seen, hidden by others or beyond the border, is taken away
_SUPERSAMPLING = 4  # of outlines, for soft edges
_CONTRAST = 55  # least distance of a shape's mean colour from the ground's, RGB 0..255


@dataclass(frozen=True)
class Shape:
    """One shape as it is drawn, before anything hides it.

    Attributes:
        label: position in `CLASSES`.
        outline: (n, 2) float64 x y in pixels; of a ring, its outer edge.
        coverage: (h, w) float32, the part of each pixel that it covers.
        origin_xy: pixel of the crop's top left corner, inside the image.
        full_area: pixels that it would cover in an endless image.
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
    """Writes `<out_dir>/<split>/000001.png`... and, when all of them are there, `<out_dir>/<split>.json`.

    Mirroring an image from left to right swaps the keypoints left and right by their names, but nothing swaps top and
    bottom: train them without `augment.flip_vertical` and `augment.quarter_turns`. Both are off by default, on in
    mask_rcnn_tiny, and off again in keypoint_rcnn_tiny.

    Args:
        count: images.
        size: their side in pixels.
        seed: the same seed, split and size give the same files, byte for byte.
        keypoints: whether the annotations have `KEYPOINTS`; the images are the same with them and without.

    Returns:
        the JSON.

    Raises:
        DataError: a count or size that makes no data set.
    """
    if count < 1 or size < 32:
        raise DataError(f"expected 1 or more images of 32 or more pixels, found count {count} and size {size}")
    target, folder = Path(out_dir) / f"{split}.json", Path(out_dir) / split
    target.unlink(missing_ok=True)  # written last: whoever finds it finds the images that it names
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
    named = {"keypoints": KEYPOINTS} if keypoints else {}
    content = {
        "info": {"description": f"Generated shapes, split {split}, seed {seed}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": label + 1, "name": name, **named} for label, name in enumerate(CLASSES)],
    }
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
    return target


def draw_shapes(
    size: int, rng: np.random.Generator, keypoints: bool = False
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """One image, (S, S, 3) uint8, and the COCO annotations of its objects: category_id, bbox, area, segmentation; and
    keypoints and num_keypoints where they are asked for.

    A mask is the visible part. Shapes that are seen whole get polygons where their outline is one, others run
    lengths. Keypoints are those of the whole outline.
    """
    number = 0 if rng.random() < _EMPTY else int(rng.integers(1, _MOST_OBJECTS + 1))
    shapes = [_shape(size, rng) for _ in range(number)]
    owners = _owners(shapes, size)
    shapes = [s for i, s in enumerate(shapes) if np.count_nonzero(owners == i) >= _VISIBLE * s.full_area]
    owners = _owners(shapes, size)  # what was taken away hides nothing
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
    """(S, S) int64, the position of the shape seen at each pixel; -1 for ground. Later shapes lie on top."""
    owners = np.full((size, size), -1)
    for i, shape in enumerate(shapes):
        owners[shape.window][shape.coverage >= 0.5] = i
    return owners


def _annotation(shape: Shape, visible: np.ndarray) -> dict[str, Any]:
    size = (visible.shape[0], visible.shape[1])
    # A polygon only where it is the whole truth: nothing hidden, nothing beyond the border, no hole.
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
    """`KEYPOINTS` as COCO has them, in pixel indices; zeros for those beyond the border.

    Visibility is 1 where `hidden`, (S, S) bool, says that a later shape lies on top, and 2 elsewhere. The pixel one
    step towards the middle decides: the one at the very tip may be mostly ground, and hold the edge of a neighbour
    that touches the shape without hiding it.
    """
    x, y = shape.outline.T
    points = shape.outline[[y.argmin(), x.argmax(), y.argmax(), x.argmin()]]
    inside = np.all((points >= 0) & (points < len(hidden)), axis=1)
    # No outline is so bent that the way to the mean of its corners leaves it.
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
    # The crop that holds the outline, over the border too; then the part of it that lies in the image.
    x1, y1 = np.floor(outline.min(axis=0)).astype(int).tolist()
    x2, y2 = np.ceil(outline.max(axis=0)).astype(int).tolist()
    fine = Image.new("L", ((x2 - x1) * _SUPERSAMPLING, (y2 - y1) * _SUPERSAMPLING))
    pen = ImageDraw.Draw(fine)
    for points, value in ((outline, 255), (hole, 0)):
        if points is not None:
            corners = (points - (x1, y1)) * _SUPERSAMPLING - 0.5  # PIL's whole numbers are pixel centres
            pen.polygon([tuple(corner) for corner in corners.tolist()], fill=value)
    coverage = np.asarray(fine.reduce(_SUPERSAMPLING), dtype=np.float32) / 255
    left, top = max(0, -x1), max(0, -y1)
    seen = coverage[top : size - y1, left : size - x1]
    return Shape(label, outline, seen, (x1 + left, y1 + top), float(coverage.sum()))


def _unit_outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """(n, 2) points on or in the unit circle."""
    if name == "rectangle":
        half = rng.uniform(0.5, 0.785)  # angle of a corner; pi / 4 is a square
        x, y = math.cos(half), math.sin(half)
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
    """(3,) float RGB 0..255 of any hue, neither black nor white; at some distance from another colour."""
    while True:
        hue, saturation, value = rng.uniform(0, 6), rng.uniform(0.1, most_saturation), rng.uniform(0.3, 0.95)
        wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
        colour = 255 * value * (1 - saturation + saturation * wheel)
        if apart_from is None or np.linalg.norm(colour - apart_from) >= _CONTRAST:
            return colour


def _texture(size_hw: tuple[int, int], colour: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """(h, w, 3) float32 around a colour: a pattern between two tints of it, and grain."""
    h, w = size_hw
    tint = rng.normal(0, strength, 3) * 0.5 + rng.normal(0, strength)
    pattern = _pattern(h, w, rng)
    grain = rng.standard_normal((h, w, 1), dtype=np.float32) * rng.uniform(0, 9)
    flat = (colour - tint / 2).astype(np.float32)
    return flat + pattern[..., None] * tint.astype(np.float32) + grain


def _pattern(h: int, w: int, rng: np.random.Generator) -> np.ndarray:
    """(h, w) float32 in about 0..1: plain, a gradient, stripes, checks, or clouds."""
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
    rate = np.float32(2 * math.pi / rng.uniform(6, 22))  # a period of so many pixels
    wave = np.sin(along * rate + np.float32(rng.uniform(0, 6)))
    if kind == "checks":
        wave = wave * np.sin(across * rate)
    return np.clip(np.float32(0.5) + wave * np.float32(rng.uniform(0.5, 2)), 0, 1)


def _photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a camera does: uneven light, a little blur, noise. (S, S, 3) float32 -> uint8."""
    size = len(image)
    slope = rng.uniform(-0.12, 0.12, 2)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    light = 1 + ramp[:, None] * np.float32(slope[0]) + ramp * np.float32(slope[1])
    lit = np.clip(image * light[..., None], 0, 255).astype(np.uint8)
    blurred = Image.fromarray(lit).filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(1, 5)
    return np.clip(np.asarray(blurred, dtype=np.float32) + noise + 0.5, 0, 255).astype(np.uint8)

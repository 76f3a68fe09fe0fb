"""Draws masks, boxes, keypoints and labels of the objects of one image.

Legend: H, W of the image, N objects, K keypoints, E the integer factor by which a picture is enlarged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn.errors import DataError
from maskrcnn.files.pixels.rgb import as_picture
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.keypoints import Side, side
from maskrcnn.structures.masks import RLE
from maskrcnn.visualise.labels import draw_labels
from maskrcnn.visualise.palette import INK, PALETTE, Colour, font

ColourBy = Literal["auto", "class", "instance"]

_SIDES: dict[Side, Colour] = {"left": (255, 159, 28), "right": (0, 187, 249), "middle": (250, 250, 250)}
_FILL, _OUTLINE = 0.4, 0.95  # opacities of a mask
LEGIBLE_SIDE = 640  # pixels; pictures of smaller images are enlarged up to this side, so that labels are legible
KEYPOINT_SCORE = 0.05  # Detectron2's: an uncertain keypoint has a flat heatmap, and so a low score


@dataclass(frozen=True)
class Style:
    """How objects are drawn.

    Attributes:
        enlarge: E.
        shrink: factor by which the picture will be shrunk afterwards; lines and text are drawn larger to match.
        min_keypoint_score: keypoints with a lower score are not drawn.
    """

    enlarge: int = 1
    shrink: float = 1.0
    min_keypoint_score: float = KEYPOINT_SCORE


def enlargement(height: int, width: int) -> int:
    """The factor E with which labels are legible on the picture of an image of this size."""
    return max(1, LEGIBLE_SIDE // max(height, width))


def draw(
    image: np.ndarray,
    instances: Instances,
    *,
    min_score: float = 0.5,
    min_keypoint_score: float = KEYPOINT_SCORE,
    enlarge: int = 1,
    colour_by: ColourBy = "auto",
) -> np.ndarray:
    """Draws masks, boxes, keypoints with their limbs, names and scores on a copy of an image.

    Keypoints and limbs are orange on the left side of the body, blue on the right and white between, by the names of
    the keypoints. Without `instances.categories`, keypoints are white and limbs are not drawn.

    Args:
        image: (H, W, 3) uint8 RGB, or (H, W, C) numbers, which are drawn as `as_picture` shows them.
        instances: objects of that image. A score of 1 (ground truth) is not written.
        min_score: objects with a lower score are not drawn.
        min_keypoint_score: keypoints with a lower score (visibility, in ground truth) are not drawn.
        enlarge: E; larger values make labels on small images readable.
        colour_by: `auto` colours by class, or by instance if all objects have one class, so that touching objects
            differ.

    Returns:
        (E * H, E * W, 3) uint8 RGB.

    Raises:
        DataError: the objects belong to an image of another size.
    """
    shown = np.flatnonzero(np.asarray(instances.scores) >= min_score)
    by_class = colour_by == "class" or (colour_by == "auto" and len(np.unique(instances.labels[shown])) > 1)
    colours = np.asarray(instances.labels) if by_class else np.arange(len(instances))
    style = Style(enlarge, min_keypoint_score=min_keypoint_score)
    return np.array(draw_objects(image, instances, shown, colours, style))


def draw_objects(
    image: np.ndarray, instances: Instances, shown: np.ndarray, colours: np.ndarray, style: Style
) -> Image.Image:
    """Draws some objects on a copy of their image, and returns the picture of E * H by E * W pixels.

    Args:
        shown: positions of the objects in `instances`, best first.
        colours: (N,) integers; each picks a colour of the palette.

    Raises:
        DataError: the objects belong to an image of another size.
    """
    if tuple(instances.image_hw) != image.shape[:2]:
        raise DataError(
            f"expected objects of an image of height, width {image.shape[:2]}, found objects of {instances.image_hw}"
        )
    canvas, enlarge = Image.fromarray(as_picture(image)), style.enlarge
    if enlarge > 1:
        canvas = canvas.resize((canvas.width * enlarge, canvas.height * enlarge), Image.Resampling.BICUBIC)
    if len(shown) == 0:
        return canvas
    thickness = max(1, round(min(canvas.size) / 400), round(style.shrink))
    paint = {int(i): PALETTE[int(colours[i]) % len(PALETTE)] for i in shown}
    if instances.masks is not None:
        areas = {i: instances.masks[i].area for i in paint}
        for i in sorted(paint, key=areas.__getitem__, reverse=True):  # small objects on top of large ones
            _blend(canvas, instances.masks[i], paint[i], thickness, enlarge)
    boxes = np.asarray(instances.boxes, dtype=np.float64) * enlarge
    pen = ImageDraw.Draw(canvas)
    for i in paint:
        x1, y1, x2, y2 = boxes[i].round().astype(int).tolist()
        edges = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))  # Pillow draws up to and including the far corner
        pen.rectangle(edges, outline=paint[i], width=thickness)
    if instances.keypoints is not None:
        for i in reversed(paint):  # the best on top
            _draw_skeleton(pen, instances, i, style, thickness)
    font_size = round(max(11 * style.shrink, min(40, min(canvas.size) / 40)))
    draw_labels(canvas, boxes, instances, paint, font(font_size))
    return canvas


def _blend(canvas: Image.Image, mask: RLE, colour: Colour, width: int, enlarge: int) -> None:
    """Fills a mask and draws an outline `width` pixels wide inside it."""
    bitmap, (x, y) = mask.crop()
    if bitmap.size == 0:
        return
    if enlarge > 1:  # smooth the enlarged outline; padding keeps its outermost pixels
        padded = Image.fromarray(np.pad(bitmap, 1) * np.uint8(255))
        smooth = padded.resize((padded.width * enlarge, padded.height * enlarge), Image.Resampling.BILINEAR)
        bitmap = (np.asarray(smooth)[enlarge:-enlarge, enlarge:-enlarge] >= 128).astype(np.uint8)
    inner = np.pad(bitmap, width)
    for _ in range(width):  # each round erodes the mask by one pixel and removes one pixel of padding
        core = inner[1:-1, 1:-1].copy()
        for neighbour in (inner[:-2, 1:-1], inner[2:, 1:-1], inner[1:-1, :-2], inner[1:-1, 2:]):
            core &= neighbour
        inner = core
    alpha = bitmap * np.uint8(255 * _OUTLINE) - inner * np.uint8(255 * _OUTLINE - 255 * _FILL)
    canvas.paste(colour, (x * enlarge, y * enlarge), Image.fromarray(alpha))


def _draw_skeleton(pen: ImageDraw.ImageDraw, instances: Instances, index: int, style: Style, thickness: int) -> None:
    """Draws the keypoints of one object and the limbs between them."""
    assert instances.keypoints is not None
    keypoints = np.asarray(instances.keypoints[index], dtype=np.float64)
    category = instances.categories[int(instances.labels[index])] if instances.categories else None
    if category is not None and not category.keypoints:
        return
    seen = (keypoints[:, 2] >= style.min_keypoint_score).tolist()
    # In Pillow, coordinate 0 is the centre of pixel 0.
    places = [(x, y) for x, y in (keypoints[:, :2] * style.enlarge - 0.5).tolist()]
    sides: list[Side] = ["middle"] * len(places)
    limbs: list[tuple[int, int]] = []
    if category is not None:
        sides = [side(name) for name in category.keypoints]
        limbs = [(a, b) for a, b in category.skeleton if seen[a] and seen[b]]
    for a, b in limbs:  # a dark border under all limbs, visible on any background
        pen.line((places[a], places[b]), fill=INK, width=3 * thickness + 2)
    for a, b in limbs:
        limb_side = sides[a] if sides[b] in (sides[a], "middle") else sides[b] if sides[a] == "middle" else "middle"
        pen.line((places[a], places[b]), fill=_SIDES[limb_side], width=3 * thickness)
    radius = 2 * thickness + 1
    for (x, y), keypoint_side, visible in zip(places, sides, seen, strict=True):
        if visible:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_SIDES[keypoint_side], outline=INK)

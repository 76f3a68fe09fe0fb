"""Masks, boxes, keypoints and labels of the objects of one image.

Legend: H, W of the image, N objects, K keypoints, E the enlargement of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn.errors import DataError
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.keypoints import Side, side
from maskrcnn.structures.masks import RLE
from maskrcnn.visualise.labels import draw_labels
from maskrcnn.visualise.palette import INK, PALETTE, Colour, font

ColourBy = Literal["auto", "class", "instance"]

_SIDES: dict[Side, Colour] = {"left": (255, 159, 28), "right": (0, 187, 249), "middle": (250, 250, 250)}
_FILL, _OUTLINE = 0.4, 0.95  # opacities of a mask
# Peaks of a keypoint's heat map are low where many places seem possible: Detectron2 draws from this score on.
KEYPOINT_SCORE = 0.05


@dataclass(frozen=True)
class Style:
    """How objects are drawn.

    Attributes:
        enlarge: whole factor E of the picture.
        shrink: lines and words are made larger for a picture that will be shrunk by this factor.
        min_keypoint_score: keypoints of a lower score are left out.
    """

    enlarge: int = 1
    shrink: float = 1.0
    min_keypoint_score: float = KEYPOINT_SCORE


def draw(
    image: np.ndarray,
    instances: Instances,
    *,
    min_score: float = 0.5,
    min_keypoint_score: float = KEYPOINT_SCORE,
    enlarge: int = 1,
    colour_by: ColourBy = "auto",
) -> np.ndarray:
    """Masks, boxes, keypoints with their limbs, names and scores on a copy of an image.

    Limbs are orange at the left of the body, blue at its right and white between the sides; the names of the keypoints
    tell which is which. Without `instances.categories` only points are drawn.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: objects of that image; scores of 1, the ground truth, are not written out.
        min_score: objects below it are left out.
        min_keypoint_score: keypoints of a lower score (in annotations: visibility) are left out.
        enlarge: whole factor E of the picture, so that labels on small images can be read.
        colour_by: `auto` colours by class, but by instance where all objects are of one class, so that objects that
            touch can be told apart.

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
    """Draws some objects on a copy of their image; (E * H, E * W).

    Args:
        shown: positions in `instances`.
        colours: (N,) numbers of colours, one for every instance.

    Raises:
        DataError: the objects belong to an image of another size.
    """
    if tuple(instances.image_hw) != image.shape[:2]:
        raise DataError(
            f"expected objects of an image of height, width {image.shape[:2]}, found some of {instances.image_hw}"
        )
    canvas, enlarge = Image.fromarray(image), style.enlarge
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
        edges = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))  # Pillow's far corner is the last pixel inside
        pen.rectangle(edges, outline=paint[i], width=thickness)
    if instances.keypoints is not None:
        for i in reversed(paint):  # the best on top
            _draw_skeleton(pen, instances, i, style, thickness)
    font_size = round(max(11 * style.shrink, min(40, min(canvas.size) / 40)))
    draw_labels(canvas, boxes, instances, paint, font(font_size))
    return canvas


def _blend(canvas: Image.Image, mask: RLE, colour: Colour, width: int, enlarge: int) -> None:
    """Fills a mask and outlines it on the inside, `width` pixels wide."""
    bitmap, (x, y) = mask.crop()
    if bitmap.size == 0:
        return
    if enlarge > 1:  # smooth between the pixels of the mask; the margin keeps its rim whole
        padded = Image.fromarray(np.pad(bitmap, 1) * np.uint8(255))
        smooth = padded.resize((padded.width * enlarge, padded.height * enlarge), Image.Resampling.BILINEAR)
        bitmap = (np.asarray(smooth)[enlarge:-enlarge, enlarge:-enlarge] >= 128).astype(np.uint8)
    inner = np.pad(bitmap, width)
    for _ in range(width):  # each round takes the rim off and one row of the margin
        core = inner[1:-1, 1:-1].copy()
        for neighbour in (inner[:-2, 1:-1], inner[2:, 1:-1], inner[1:-1, :-2], inner[1:-1, 2:]):
            core &= neighbour
        inner = core
    alpha = bitmap * np.uint8(255 * _OUTLINE) - inner * np.uint8(255 * _OUTLINE - 255 * _FILL)
    canvas.paste(colour, (x * enlarge, y * enlarge), Image.fromarray(alpha))


def _draw_skeleton(pen: ImageDraw.ImageDraw, instances: Instances, index: int, style: Style, thickness: int) -> None:
    """The keypoints of one object and the limbs between them."""
    assert instances.keypoints is not None
    keypoints = np.asarray(instances.keypoints[index], dtype=np.float64)
    category = instances.categories[int(instances.labels[index])] if instances.categories else None
    if category is not None and not category.keypoints:
        return
    seen = (keypoints[:, 2] >= style.min_keypoint_score).tolist()
    # Pillow's 0 is the centre of pixel 0.
    places = [(x, y) for x, y in (keypoints[:, :2] * style.enlarge - 0.5).tolist()]
    sides: list[Side] = ["middle"] * len(places)
    limbs: list[tuple[int, int]] = []
    if category is not None:
        sides = [side(name) for name in category.keypoints]
        limbs = [(a, b) for a, b in category.skeleton if seen[a] and seen[b]]
    for a, b in limbs:  # under all others: a dark rim, which shows on any ground
        pen.line((places[a], places[b]), fill=INK, width=3 * thickness + 2)
    for a, b in limbs:
        of_one_side = sides[a] if sides[b] in (sides[a], "middle") else sides[b] if sides[a] == "middle" else "middle"
        pen.line((places[a], places[b]), fill=_SIDES[of_one_side], width=3 * thickness)
    radius = 2 * thickness + 1
    for (x, y), own, drawn in zip(places, sides, seen, strict=True):
        if drawn:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_SIDES[own], outline=INK)

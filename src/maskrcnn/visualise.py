"""Pictures: objects drawn on their image, and truth beside prediction.

Pillow draws everything, masks each inside its own crop. supervision would take image-sized masks (3.6 GB for 300
objects on 12 megapixels) and, without OpenCV, 8 s for 300 boxes.

Legend: H, W of the image, N objects drawn, K keypoints, E the enlargement of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.keypoints import Side, side
from maskrcnn.structures.masks import RLE

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
ColourBy = Literal["auto", "class", "instance"]

# Neighbours in the list differ in hue and in lightness; all of them show on dark and on light images.
PALETTE: tuple[Colour, ...] = (
    (255, 77, 109),
    (46, 196, 182),
    (255, 183, 3),
    (67, 97, 238),
    (144, 190, 40),
    (181, 58, 221),
    (251, 133, 0),
    (0, 166, 214),
    (240, 98, 192),
    (35, 140, 74),
    (199, 125, 255),
    (214, 64, 36),
)
_SIDES: dict[Side, Colour] = {"left": (255, 159, 28), "right": (0, 187, 249), "middle": (250, 250, 250)}
_INK, _PAPER = (24, 24, 27), (255, 255, 255)
_FILL, _OUTLINE = 0.4, 0.95  # opacities of a mask
# Of the picture may lie under labels, with and without names; beyond that, objects not twice their size have none.
_MOST_LABELLED, _MOST_SCORED = 0.15, 0.04
_TILE = (320, 800)  # pixels of a contact sheet's images: the short side at least, the long side at most
# Peaks of a keypoint's heat map are low where many places seem likely: what Detectron2 draws.
KEYPOINT_SCORE = 0.05
_TRUTH_SIMILAR = 0.3  # box IoU from which a found object takes the colour of an annotated one


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

    Limbs are orange at the left of the body, blue at its right and white between the sides, as the names of the
    keypoints tell; without `instances.categories` there are only points.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: objects of that image; scores of 1, the ground truth, are not written out.
        min_score: objects below it are left out.
        min_keypoint_score: keypoints of a lower score, or visibility, are left out.
        enlarge: whole factor E of the picture, so that labels on small images can be read.
        colour_by: `auto` is by instance where all objects are of one class, so that touching ones can be told
            apart, else by class.

    Returns:
        (E * H, E * W, 3) uint8 RGB.

    Raises:
        DataError: the objects are of an image of another size.
    """
    shown = np.flatnonzero(np.asarray(instances.scores) >= min_score)
    by_class = colour_by == "class" or (colour_by == "auto" and len(np.unique(instances.labels[shown])) > 1)
    colours = np.asarray(instances.labels) if by_class else np.arange(len(instances))
    return np.array(_draw(image, instances, shown, colours, enlarge, min_keypoint_score=min_keypoint_score))


def contact_sheet(
    rows: Sequence[tuple[np.ndarray, Instances, Instances]], *, columns: int = 2, min_score: float = 0.5
) -> np.ndarray:
    """Pairs of pictures, truth at the left and prediction at the right, with captions. Small images are enlarged,
    large ones shrunk.

    Args:
        rows: image (H, W, 3) uint8 RGB, its annotated objects, the objects found.
        columns: pairs side by side.
        min_score: found objects below it are left out.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        DataError: no pairs, or objects of an image of another size.
    """
    from PIL import Image, ImageDraw

    if not rows:
        raise DataError("contact sheet: expected one or more images, found none")
    columns = min(columns, len(rows))
    several_classes = len({int(label) for _, *both in rows for one in both for label in one.labels}) > 1
    pairs = []
    for image, truth, found in rows:
        enlarge = math.ceil(_TILE[0] / min(image.shape[:2]))
        shrink = max(1.0, enlarge * max(image.shape[:2]) / _TILE[1])
        shown = np.flatnonzero(found.scores >= min_score)
        if several_classes:
            colours = np.asarray(truth.labels), np.asarray(found.labels)
        else:
            colours = np.arange(len(truth)), _colours_of_truth(truth.boxes, found.boxes)
        left = _draw(image, truth, np.arange(len(truth)), colours[0], enlarge, shrink)
        right = _draw(image, found, shown, colours[1], enlarge, shrink)
        if shrink > 1:
            left.thumbnail((_TILE[1], _TILE[1]))
            right.thumbnail((_TILE[1], _TILE[1]))
        pairs.append((left, right, len(truth), len(shown)))

    gap, between, font = 14, 4, _font(15)
    caption = 26
    wide = max(left.width for left, *_ in pairs)
    heights = [max(left.height for left, *_ in pairs[i : i + columns]) for i in range(0, len(pairs), columns)]
    pair_width = 2 * wide + between
    sheet = Image.new(
        "RGB",
        (columns * (pair_width + 2 * gap), sum(heights) + len(heights) * (caption + gap) + gap // 2),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    y = gap // 2
    for i, (left, right, annotated, number) in enumerate(pairs):
        row, column = divmod(i, columns)
        x = gap + column * (pair_width + 2 * gap)
        for picture, start, text in (
            (left, x, f"truth: {_objects(annotated)}"),
            (right, x + left.width + between, f"found: {_objects(number)}"),
        ):
            pen.text((start, y + caption // 2), text, fill=_INK, font=font, anchor="lm")
            sheet.paste(picture, (start, y + caption))
        if column == columns - 1:
            y += heights[row] + caption + gap
    return np.array(sheet)


def _draw(
    image: np.ndarray,
    instances: Instances,
    shown: np.ndarray,
    colours: np.ndarray,
    enlarge: int,
    shrink: float = 1.0,
    min_keypoint_score: float = KEYPOINT_SCORE,
) -> Image.Image:
    """Draws the objects `shown`, positions in `instances`.

    Args:
        colours: a number for every instance.
        shrink: lines and words are made larger for a picture that will be shrunk by this factor.
    """
    from PIL import Image, ImageDraw

    if tuple(instances.image_hw) != image.shape[:2]:
        raise DataError(
            f"expected objects of an image of height, width {image.shape[:2]}, found some of {instances.image_hw}"
        )
    canvas = Image.fromarray(image)
    if enlarge > 1:
        canvas = canvas.resize((canvas.width * enlarge, canvas.height * enlarge), Image.Resampling.BICUBIC)
    if len(shown) == 0:
        return canvas
    thickness = max(1, round(min(canvas.size) / 400), round(shrink))
    paint = {int(i): PALETTE[int(colours[i]) % len(PALETTE)] for i in shown}
    if instances.masks is not None:
        areas = {i: instances.masks[i].area for i in paint}
        for i in sorted(paint, key=areas.__getitem__, reverse=True):  # small objects on top of large ones
            _blend(canvas, instances.masks[i], paint[i], thickness, enlarge)
    boxes = np.asarray(instances.boxes, dtype=np.float64) * enlarge
    pen = ImageDraw.Draw(canvas)
    for i in paint:
        x1, y1, x2, y2 = boxes[i].round().astype(int).tolist()
        edges = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))  # pillow's far corner is the last pixel inside
        pen.rectangle(edges, outline=paint[i], width=thickness)
    if instances.keypoints is not None:
        for i in reversed(paint):  # the best on top
            _draw_skeleton(pen, instances, i, min_keypoint_score, enlarge, thickness)
    _draw_labels(canvas, boxes, instances, paint, _font(round(max(11 * shrink, min(40, min(canvas.size) / 40)))))
    return canvas


def _blend(canvas: Image.Image, mask: RLE, colour: Colour, width: int, enlarge: int) -> None:
    """Fills a mask and outlines it on the inside, `width` pixels wide."""
    from PIL import Image

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


def _draw_skeleton(
    pen: ImageDraw.ImageDraw, instances: Instances, index: int, min_score: float, enlarge: int, thickness: int
) -> None:
    """The keypoints of one object and the limbs between them."""
    assert instances.keypoints is not None
    keypoints = np.asarray(instances.keypoints[index], dtype=np.float64)
    category = instances.categories[int(instances.labels[index])] if instances.categories else None
    if category is not None and not category.keypoints:
        return
    seen = (keypoints[:, 2] >= min_score).tolist()
    places = [(x, y) for x, y in (keypoints[:, :2] * enlarge - 0.5).tolist()]  # pillow's 0 is the centre of pixel 0
    sides: list[Side] = ["middle"] * len(places)
    limbs: list[tuple[int, int]] = []
    if category is not None:
        sides = [side(name) for name in category.keypoints]
        limbs = [(a, b) for a, b in category.skeleton if seen[a] and seen[b]]
    for a, b in limbs:  # under all others: a dark rim, which shows on any ground
        pen.line((places[a], places[b]), fill=_INK, width=3 * thickness + 2)
    for a, b in limbs:
        of_one_side = sides[a] if sides[b] in (sides[a], "middle") else sides[b] if sides[a] == "middle" else "middle"
        pen.line((places[a], places[b]), fill=_SIDES[of_one_side], width=3 * thickness)
    radius = 2 * thickness + 1
    for (x, y), own, drawn in zip(places, sides, seen, strict=True):
        if drawn:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_SIDES[own], outline=_INK)


def _draw_labels(
    canvas: Image.Image,
    boxes: np.ndarray,
    instances: Instances,
    paint: dict[int, Colour],
    font: ImageFont.FreeTypeFont,
) -> None:
    """Names and scores, the best score first, each where it hides fewest of the labels already there."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(canvas)
    pad = max(2, int(font.size) // 5)
    ascent, descent = font.getmetrics()
    # With one class and many objects the name says nothing new.
    named = len(paint) <= 12 or len({int(instances.labels[i]) for i in paint}) > 1
    budget = _MOST_LABELLED if named else _MOST_SCORED
    texts = {i: text for i in paint if (text := _text(instances, i, named))}
    sizes = {i: (round(font.getlength(text)) + 2 * pad, ascent + descent + pad // 2) for i, text in texts.items()}
    if sum(w * h for w, h in sizes.values()) > budget * canvas.width * canvas.height:
        room = {i: (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1]) for i in texts}
        texts = {i: text for i, text in texts.items() if sizes[i][0] * sizes[i][1] < 0.5 * room[i]}
    placed = np.zeros((0, 4))
    for i in sorted(texts, key=lambda i: -float(instances.scores[i])):
        spot = _spot(boxes[i], sizes[i], placed, canvas.size)
        placed = np.concatenate([placed, spot[None]])
        x1, y1, x2, y2 = spot.astype(int).tolist()
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=paint[i])
        light = 0.299 * paint[i][0] + 0.587 * paint[i][1] + 0.114 * paint[i][2] > 140
        pen.text((x1 + pad, y1 + pad // 4), texts[i], fill=_INK if light else _PAPER, font=font)


def _spot(box: np.ndarray, size: tuple[int, int], placed: np.ndarray, canvas_wh: tuple[int, int]) -> np.ndarray:
    """(4,) where a label goes: above its box, inside it, below, the first place that is free."""
    (w, h), (x1, y1, x2, y2) = size, box.round()
    inside = [(x1, y1), (x2 - w, y1), (x1, y2 - h), ((x1 + x2 - w) // 2, (y1 + y2 - h) // 2)]
    corners = np.array(
        [(x1, y1 - h), inside[0], (x2 - w, y1 - h), *inside[1:], (x1, y2), (x1, y2 + h), (x1, y1 - 2 * h)]
    )
    corners = np.clip(corners, 0, np.maximum(0, np.array(canvas_wh) - size))
    spots = np.concatenate([corners, corners + size], axis=1)
    low = np.maximum(spots[:, None, :2], placed[None, :, :2])
    high = np.minimum(spots[:, None, 2:], placed[None, :, 2:])
    hidden = np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)
    best: np.ndarray = spots[int(np.argmin(hidden))]
    return best


def _text(instances: Instances, index: int, named: bool) -> str:
    score = float(instances.scores[index])
    words = [instances.names[index] if instances.names else f"class {int(instances.labels[index])}"] if named else []
    return " ".join(words + ([f"{score:.2f}"] if score < 1 else []))


def _colours_of_truth(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(F,) for found boxes the position of the most similar of T annotated ones, or a number after theirs."""
    numbers = len(truth) + np.arange(len(found))
    if len(truth) == 0 or len(found) == 0:
        return numbers
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (found, truth)]
    iou = common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-9)
    return np.where(iou.max(axis=1) >= _TRUTH_SIMILAR, iou.argmax(axis=1), numbers)


def _objects(number: int) -> str:
    return "1 object" if number == 1 else f"{number} objects"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which knows most alphabets; matplotlib brings it."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)

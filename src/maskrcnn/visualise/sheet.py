"""A contact sheet: many images, each with its ground truth beside the detections.

Legend: H, W of an image, T ground-truth objects, F detections.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn.errors import DataError, printable
from maskrcnn.structures.instances import Instances
from maskrcnn.visualise.objects import Style, draw_objects
from maskrcnn.visualise.palette import INK, PAPER, font

_SHORT_SIDE, _LONG_SIDE = 320, 800  # pixels of an image on the sheet: minimum short side, maximum long side
_TILE = 480  # pixels of the longer side of a single picture on a sheet, at most
_GAP, _BETWEEN, _CAPTION = 14, 4, 26  # pixels around a pair, between its pictures, and above them
_SIMILAR_IOU = 0.3  # minimum IoU of the boxes for a detection to take the colour of a ground-truth object


def contact_sheet(
    rows: Sequence[tuple[np.ndarray, Instances, Instances]], *, columns: int = 2, min_score: float = 0.5
) -> np.ndarray:
    """Draws pairs of pictures with captions, the ground truth on the left and the detections on the right. Small images
    are enlarged, large images are shrunk.

    Args:
        rows: for each image: (H, W, 3) uint8 RGB pixels, ground truth, detections.
        columns: pairs side by side.
        min_score: detections with a lower score are not drawn.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        DataError: there are no rows, or the objects belong to an image of another size.
    """
    if not rows:
        raise DataError("contact sheet: expected one or more images, found none")
    columns = min(columns, len(rows))
    by_class = len({int(label) for _, *both in rows for one in both for label in one.labels}) > 1
    pairs = [_pair(image, truth, found, by_class, min_score) for image, truth, found in rows]
    return _grid(pairs, columns)


def picture_sheet(pictures: Sequence[tuple[np.ndarray, str]], *, columns: int = 4) -> np.ndarray:
    """Puts pictures with captions on one sheet. Large pictures are shrunk.

    Args:
        pictures: (H, W, 3) uint8 RGB each, with a caption that is cut if it is too long.
        columns: pictures side by side.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        DataError: there are no pictures.
    """
    if not pictures:
        raise DataError("picture sheet: expected one or more pictures, found none")
    tiles = []
    for image, caption in pictures:
        shown = Image.fromarray(image)
        shown.thumbnail((_TILE, _TILE))
        tile = Image.new("RGB", (max(shown.width, _TILE // 2), shown.height + _CAPTION), PAPER)
        line = printable(caption)[: tile.width // 8]
        ImageDraw.Draw(tile).text((0, _CAPTION // 2), line, fill=INK, font=font(13), anchor="lm")
        tile.paste(shown, (0, _CAPTION))
        tiles.append(tile)
    return _grid(tiles, min(columns, len(tiles)))


def _grid(tiles: Sequence[Image.Image], columns: int) -> np.ndarray:
    """Puts tiles on one sheet, row by row."""
    lines = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in line) + _GAP for line in lines]
    width = max(tile.width for tile in tiles) + 2 * _GAP
    sheet = Image.new("RGB", (columns * width, sum(heights) + _GAP // 2), PAPER)
    y = _GAP // 2
    for line, height in zip(lines, heights, strict=True):
        for column, tile in enumerate(line):
            sheet.paste(tile, (_GAP + column * width, y))
        y += height
    return np.array(sheet)


def _pair(image: np.ndarray, truth: Instances, found: Instances, by_class: bool, min_score: float) -> Image.Image:
    """Both pictures of an image side by side, with captions above them."""
    enlarge = math.ceil(_SHORT_SIDE / min(image.shape[:2]))
    shrink = max(1.0, enlarge * max(image.shape[:2]) / _LONG_SIDE)
    colours = (truth.labels, found.labels) if by_class else (np.arange(len(truth)), _colours(truth.boxes, found.boxes))
    shown, style = np.flatnonzero(found.scores >= min_score), Style(enlarge, shrink)
    left = draw_objects(image, truth, np.arange(len(truth)), colours[0], style)
    right = draw_objects(image, found, shown, colours[1], style)
    if shrink > 1:
        left.thumbnail((_LONG_SIDE, _LONG_SIDE))
        right.thumbnail((_LONG_SIDE, _LONG_SIDE))
    pair = Image.new("RGB", (2 * left.width + _BETWEEN, left.height + _CAPTION), PAPER)
    pen = ImageDraw.Draw(pair)
    for x, picture, kind, count in (
        (0, left, "truth", len(truth)),
        (left.width + _BETWEEN, right, "found", len(shown)),
    ):
        caption = f"{kind}: {count} object{'' if count == 1 else 's'}"
        pen.text((x, _CAPTION // 2), caption, fill=INK, font=font(15), anchor="lm")
        pair.paste(picture, (x, _CAPTION))
    return pair


def _colours(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(F,) colour number of each detection: that of its most similar ground-truth object, or a number from T on."""
    numbers = len(truth) + np.arange(len(found))
    if len(truth) == 0 or len(found) == 0:
        return numbers
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (found, truth)]
    iou = common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-9)
    return np.where(iou.max(axis=1) >= _SIMILAR_IOU, iou.argmax(axis=1), numbers)

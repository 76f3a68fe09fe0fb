"""Draws the names and scores of objects so that they overlap little."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskrcnn.errors import printable
from maskrcnn.structures.instances import Instances
from maskrcnn.visualise.palette import INK, PAPER, Colour

# The fraction of the picture that labels may cover, with and without names. If all labels would cover more, only
# objects whose box has more than twice the area of its label get one.
_MAX_NAMED, _MAX_SCORED = 0.15, 0.04


def draw_labels(
    canvas: Image.Image,
    boxes: np.ndarray,
    instances: Instances,
    paint: dict[int, Colour],
    font: ImageFont.FreeTypeFont,
) -> None:
    """Draws names and scores by descending score, each where it overlaps least with the labels drawn before.

    Args:
        boxes: (N, 4) x1 y1 x2 y2 of `instances`, in pixels of the canvas.
        paint: the objects to label: position in `instances` -> colour.
    """
    pen = ImageDraw.Draw(canvas)
    pad = max(2, int(font.size) // 5)
    ascent, descent = font.getmetrics()
    # Names are left out when many objects all have the same class.
    named = len(paint) <= 12 or len({int(instances.labels[i]) for i in paint}) > 1
    budget = _MAX_NAMED if named else _MAX_SCORED
    texts = {i: text for i in paint if (text := _text(instances, i, named))}
    sizes = {i: (round(font.getlength(text)) + 2 * pad, ascent + descent + pad // 2) for i, text in texts.items()}
    if sum(w * h for w, h in sizes.values()) > budget * canvas.width * canvas.height:
        areas = {i: (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1]) for i in texts}
        texts = {i: text for i, text in texts.items() if sizes[i][0] * sizes[i][1] < 0.5 * areas[i]}
    placed = np.zeros((0, 4))
    for i in sorted(texts, key=lambda i: -float(instances.scores[i])):
        spot = _spot(boxes[i], sizes[i], placed, canvas.size)
        placed = np.concatenate([placed, spot[None]])
        x1, y1, x2, y2 = spot.astype(int).tolist()
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=paint[i])
        light = 0.299 * paint[i][0] + 0.587 * paint[i][1] + 0.114 * paint[i][2] > 140
        pen.text((x1 + pad, y1 + pad // 4), texts[i], fill=INK if light else PAPER, font=font)


def _spot(box: np.ndarray, size: tuple[int, int], placed: np.ndarray, canvas_wh: tuple[int, int]) -> np.ndarray:
    """The place of a label, (4,) x1 y1 x2 y2 in pixels of the canvas.

    Candidates lie above, inside and below the box. The one that overlaps least with the labels already placed wins.

    Args:
        size: width and height of the label.
        placed: (M, 4) labels already placed.
    """
    (w, h), (x1, y1, x2, y2) = size, box.round()
    inside = [(x1, y1), (x2 - w, y1), (x1, y2 - h), ((x1 + x2 - w) // 2, (y1 + y2 - h) // 2)]
    corners = np.array(
        [(x1, y1 - h), inside[0], (x2 - w, y1 - h), *inside[1:], (x1, y2), (x1, y2 + h), (x1, y1 - 2 * h)]
    )
    corners = np.clip(corners, 0, np.maximum(0, np.array(canvas_wh) - size))
    spots = np.concatenate([corners, corners + size], axis=1)
    low = np.maximum(spots[:, None, :2], placed[None, :, :2])
    high = np.minimum(spots[:, None, 2:], placed[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)
    best: np.ndarray = spots[int(np.argmin(overlap))]
    return best


def _text(instances: Instances, index: int, named: bool) -> str:
    score = float(instances.scores[index])
    words = [instances.names[index] if instances.names else f"class {int(instances.labels[index])}"] if named else []
    # No font has line feeds and other control codes, which names in files may hold.
    return printable(" ".join(words + ([f"{score:.2f}"] if score < 1 else [])))

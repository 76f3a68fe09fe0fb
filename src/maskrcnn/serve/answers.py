"""What was found in an image, in the forms that a client can ask for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from maskrcnn.data.run_coding import encoded_pixels
from maskrcnn.predict import to_coco_results
from maskrcnn.serve.problems import RefusalError
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE
from maskrcnn.visualise import draw

Format = Literal["coco", "polygons", "png", "overlay", "csv"]
PICTURES = frozenset({"png", "overlay"})


@dataclass(frozen=True)
class Answer:
    """The body of an answer and its media type."""

    body: bytes
    media_type: str


def answer(form: Format, image: np.ndarray, found: Instances, least: float | Sequence[float], model: str) -> Answer:
    """`found` in one of the forms.

    Args:
        image: (H, W, 3) uint8 RGB.
        least: objects with a lower score are left out: one number for all classes, or one for each.
        model: the name of the model.
    """
    return ANSWERS[form](image, found.with_score(least), model)


def coco(image: np.ndarray, found: Instances, model: str) -> Answer:
    return _json(found, model, lambda mask: mask.to_coco())


def polygons(image: np.ndarray, found: Instances, model: str) -> Answer:
    return _json(found, model, lambda mask: [part.reshape(-1).tolist() for part in mask.outer_polygons()])


def label_image(image: np.ndarray, found: Instances, model: str) -> Answer:
    """A PNG of 16 bits: 0 for the background and n for the n-th object. Better objects cover others."""
    if found.masks is None:
        raise RefusalError(400, "the model finds no masks; ask for coco, csv or overlay")
    labels = np.zeros(found.image_hw, np.uint16)
    for number in range(len(found), 0, -1):
        bitmap, (x, y) = found.masks[number - 1].crop()
        labels[y : y + bitmap.shape[0], x : x + bitmap.shape[1]][bitmap != 0] = number
    return Answer(_png(Image.fromarray(labels)), "image/png")


def overlay(image: np.ndarray, found: Instances, model: str) -> Answer:
    return Answer(_png(Image.fromarray(draw(image, found, min_score=0.0))), "image/png")


def run_length_csv(image: np.ndarray, found: Instances, model: str) -> Answer:
    """One row an object. `EncodedPixels` are pairs of start and length that count pixels from 1 down the columns, as
    in the competitions of Kaggle."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["class", "score", "x1", "y1", "x2", "y2", "EncodedPixels"])
    for i, category in enumerate(found.class_names):
        pixels = "" if found.masks is None else encoded_pixels(found.masks[i])
        edges = [round(edge, 3) for edge in found.boxes[i].tolist()]
        table.writerow([category, float(found.scores[i]), *edges, pixels])
    return Answer(out.getvalue().encode(), "text/csv; charset=utf-8")


ANSWERS: dict[Format, Callable[[np.ndarray, Instances, str], Answer]] = {
    "coco": coco,
    "polygons": polygons,
    "png": label_image,
    "overlay": overlay,
    "csv": run_length_csv,
}


def _json(found: Instances, model: str, segmentation: Callable[[RLE], Any]) -> Answer:
    objects = to_coco_results(found, 0)
    for i, (entry, category) in enumerate(zip(objects, found.class_names, strict=True)):
        del entry["image_id"]
        entry["category"] = category
        if found.masks is not None:
            entry["segmentation"] = segmentation(found.masks[i])
    height, width = found.image_hw
    content = {"model": model, "width": width, "height": height, "objects": objects}
    return Answer(json.dumps(content).encode(), "application/json")


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=1)
    return out.getvalue()

"""Data sets in memory for the tests of recipes: objects of any number, size and place, without image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.structures.dataset import Dataset


def drawn(
    images: int,
    objects: int,
    side: float,
    size_hw: tuple[int, int] = (256, 256),
    *,
    stretch: float = 1.0,
    low: bool = False,
    grow: float = 0.0,
    classes: int = 1,
    masks: bool = True,
    seed: int = 0,
) -> Dataset:
    """Boxes around random centres.

    Args:
        objects: of each image.
        side: of the square with the area of a typical object, pixels.
        stretch: height divided by width of the objects.
        low: whether they lie in the lower half.
        grow: image number i has (1 + grow * i / images) times the size.
        classes: of which all objects but one of each image belong to the first one.
        masks: whether objects have polygons.
    """
    random = np.random.default_rng(seed)
    builder = DatasetBuilder(Path("drawn.json"))
    for number in range(classes):
        builder.add_category(number, f"kind {number}")
    for number in range(images):
        height, width = (round(length * (1 + grow * number / images)) for length in size_hw)
        builder.add_image(number, Path(f"{number}.png"), height, width, {})
        for place in range(objects):
            own = side * random.uniform(0.8, 1.25)
            w, h = min(width, own / stretch**0.5), min(height, own * stretch**0.5)
            x, y = random.uniform(0, width - w), random.uniform(min(height / 2, height - h) if low else 0, height - h)
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            kind = 0 if place else number % classes
            builder.add_annotation(
                RawAnnotation(number, kind, box=[x, y, w, h], polygons=[corners] if masks else None, area=w * h)
            )
    return builder.build()

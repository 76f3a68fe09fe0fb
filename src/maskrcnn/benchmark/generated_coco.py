"""COCO JSONs for benchmarks: generated images with polygons, and files with many annotations."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from maskrcnn.benchmark.predict import generate_images
from maskrcnn.errors import DataError

IMAGE_HW = (480, 640)
OBJECTS = 8  # per image; COCO has 7.3 on average
POINTS = 24  # per polygon


def write_coco(folder: Path, count: int) -> Path:
    """Writes generated images and a COCO JSON with polygons of all sizes; returns the path of the JSON."""
    files = generate_images(folder, count, IMAGE_HW)
    rng = np.random.default_rng(0)
    height, width = IMAGE_HW
    angles = np.arange(POINTS) * 2 * math.pi / POINTS
    annotations = []
    for number in range(count * OBJECTS):
        radius = math.exp(rng.uniform(math.log(8), math.log(150)))
        reach = radius * rng.uniform(0.6, 1.0, (POINTS, 1))
        points = rng.uniform(0, [width, height]) + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        points = points.clip(0, [width, height]).round(2)
        low, high = points.min(axis=0), points.max(axis=0)
        if (high - low).min() < 2:
            continue
        annotations.append(
            {
                "id": number + 1,
                "image_id": number // OBJECTS,
                "category_id": 1 + number % 3,
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "segmentation": [points.ravel().tolist()],
                "iscrowd": 0,
            }
        )
    content = {
        "images": [{"id": i, "file_name": f.name, "height": height, "width": width} for i, f in enumerate(files)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in ((1, "one"), (2, "two"), (3, "three"))],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def repeat_annotations(source: Path, path: Path, least: int) -> tuple[Path, int]:
    """Writes a COCO JSON that repeats the images and annotations of another one under new ids.

    Args:
        least: the minimum number of annotations to write.

    Returns:
        the path, and the number of annotations.

    Raises:
        DataError: `source` has no annotations.
    """
    content = json.loads(source.read_bytes())
    images, annotations = content["images"], content["annotations"]
    if not annotations:
        raise DataError(f"{source}: expected annotations to measure memory, found none; give other data or --no-memory")
    numbers = {image["id"]: i for i, image in enumerate(images)}
    times = math.ceil(least / len(annotations))
    content["images"] = [
        {**image, "id": turn * len(images) + i} for turn in range(times) for i, image in enumerate(images)
    ]
    content["annotations"] = [
        {**entry, "id": turn * len(annotations) + i, "image_id": turn * len(images) + numbers[entry["image_id"]]}
        for turn in range(times)
        for i, entry in enumerate(annotations)
    ]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path, times * len(annotations)

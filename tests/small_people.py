"""People of five keypoints, each a spot of its own colour on a grey ground: what a target says can be seen."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

KEYPOINTS = ("nose", "left_hand", "right_hand", "left_foot", "right_foot")
SPOTS = np.array([(250, 250, 250), (230, 20, 20), (20, 60, 230), (240, 200, 20), (20, 180, 60)], dtype=np.uint8)
PLACES = np.array([(15, 8), (5, 22), (25, 22), (9, 46), (21, 46)])  # pixels from the corner of a person of 31 x 55
PERSON = {
    "id": 4,
    "name": "person",
    "keypoints": list(KEYPOINTS),
    "skeleton": [[1, 2], [1, 3], [1, 4], [1, 5]],
}


def people_coco(count: int, seed: int = 0) -> tuple[dict[str, Any], list[np.ndarray]]:
    """COCO content of `count` images with two people each, and the (64, 80, 3) images.

    Of every person one keypoint is hidden (visibility 1), and of every second one another is not labelled.
    """
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [deepcopy(PERSON)]}
    images = []
    for i in range(count):
        image = np.full((64, 80, 3), 110, dtype=np.uint8)
        content["images"].append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 80})
        for j in range(2):
            corner = np.array([int(rng.integers(0, 9)) + 40 * j, int(rng.integers(0, 9))])
            visibility = np.full(5, 2)
            visibility[rng.integers(5)] = 1
            if j:
                visibility[rng.integers(5)] = 0
            points = np.concatenate([PLACES + corner, visibility[:, None]], axis=1) * (visibility > 0)[:, None]
            for (x, y, v), colour in zip(points.tolist(), SPOTS, strict=True):
                if v:
                    image[y - 3 : y + 4, x - 3 : x + 4] = colour
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": i,
                    "category_id": PERSON["id"],
                    "iscrowd": 0,
                    "area": 31 * 55,
                    "bbox": [*corner.tolist(), 31, 55],
                    "segmentation": [],
                    "keypoints": points.reshape(-1).tolist(),
                    "num_keypoints": int((visibility > 0).sum()),
                }
            )
        images.append(image)
    return content, images


def write_people(folder: Path, split: str, count: int, seed: int = 0) -> Path:
    """Writes `<folder>/<split>.json` and its images beside it; returns the JSON's path."""
    content, images = people_coco(count, seed)
    (folder / split).mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / split / f"{i}.png")
    path = folder / f"{split}.json"
    path.write_text(json.dumps(content))
    return path

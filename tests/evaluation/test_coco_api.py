"""Every figure equals that of the COCO API (pycocotools) on random sets of annotations and results.

The sets hold what decides between two implementations: equal scores and equal overlaps, images that are not sorted by
their ids, crowd regions, masks without pixels, areas that are negative, missing or at the limits of the ranges, more
detections than count, and categories without objects or results.
"""

from __future__ import annotations

import contextlib
import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.evaluation.coco import Report, evaluate_results

HEIGHT, WIDTH = 40, 50
SIGMAS = [0.03, 0.1, 0.06]
AREA_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
KEYPOINT_NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")  # the order of the COCO API
KINDS = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
Content = dict[str, Any]


def random_box(rng: np.random.Generator) -> list[int]:
    x, y = int(rng.integers(WIDTH - 4)), int(rng.integers(HEIGHT - 4))
    return [x, y, int(rng.integers(1, WIDTH - x + 1)), int(rng.integers(1, HEIGHT - y + 1))]


def random_mask(rng: np.random.Generator, box: list[int], empty: float) -> dict[str, Any]:
    """Most of a box, or no pixel with the probability `empty`."""
    bitmap = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    if rng.random() >= empty:
        x, y, width, height = box
        part = bitmap[y : y + height, x : x + width]
        part[:] = rng.random(part.shape) < rng.choice([0.8, 1.0])
        bitmap[y, x] = 1
    run_lengths = coco_masks.encode(np.asfortranarray(bitmap))
    return {"size": [HEIGHT, WIDTH], "counts": run_lengths["counts"].decode()}


def random_points(rng: np.random.Generator, box: list[int]) -> np.ndarray:
    """(3, 3): x, y and a visibility."""
    points = rng.integers([0, 0, 0], [box[2] + 1, box[3] + 1, 3], (3, 3))
    return (points + np.array([box[0], box[1], 0])) * (points[:, 2:] > 0)


def random_annotation(rng: np.random.Generator, number: int, ids: np.ndarray, categories: np.ndarray) -> Content:
    box = random_box(rng)
    annotation: Content = {
        "id": number,
        "image_id": int(rng.choice(ids)),
        "category_id": int(rng.choice(categories)),
        "bbox": box,
        "iscrowd": int(rng.random() < 0.15),
        "segmentation": random_mask(rng, box, 0.05),
    }
    points = random_points(rng, box)
    annotation |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
    if rng.random() > 0.1:  # else the file gives no area
        own = box[2] * box[3]
        annotation["area"] = float(rng.choice([own, own, own, -own, 0, 1024, 1024.5, 9216, 9217, 2e10]))
    return annotation


def random_result(rng: np.random.Generator, content: Content) -> Content:
    """A result near an annotation, or anywhere."""
    near: Content = content["annotations"][rng.integers(len(content["annotations"]))]
    box, points = list(near["bbox"]), np.array(near["keypoints"]).reshape(3, 3)
    place = {key: near[key] for key in ("image_id", "category_id")}
    if rng.random() < 0.3:
        box = random_box(rng)
        points = random_points(rng, box)
        place["image_id"] = content["images"][rng.integers(len(content["images"]))]["id"]
        place["category_id"] = content["categories"][rng.integers(len(content["categories"]))]["id"]
    elif rng.random() < 0.6:
        box = np.clip(box + rng.integers(-3, 4, 4), [0, 0, 1, 1], [WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT]).tolist()
        points[:, :2] += rng.integers(-3, 4, (3, 2))
    return {
        **place,
        "bbox": box,
        "segmentation": random_mask(rng, box, 0.1),
        "keypoints": points.ravel().tolist(),
        "score": float(rng.choice([0.1, 0.5, 0.5, 0.9, rng.random()])),
    }


def random_set(seed: int) -> tuple[Content, list[Content]]:
    """A COCO JSON and results for it."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(20)[: rng.integers(1, 5)] - 3
    categories = rng.permutation(6)[: rng.integers(1, 4)]
    content: Content = {
        "images": [{"id": int(i), "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.png"} for i in ids],
        "categories": [
            {"id": int(i), "name": f"kind {i}", "keypoints": ["a", "b", "c"], "sigmas": SIGMAS} for i in categories
        ],
    }
    content["annotations"] = [
        random_annotation(rng, number, ids, categories) for number in range(1, int(rng.integers(2, 11)))
    ]
    countable = {"iscrowd": 0, "area": 300.0}  # without any such object both refuse: see tests/evaluation/test_truth.py
    content["annotations"][0] |= countable
    count = rng.integers(100, 260) if seed % 20 == 0 else rng.integers(1, 25)
    return content, [random_result(rng, content) for _ in range(count)]


def of_coco_api(content: Content, results: list[Content], kind: str) -> dict[str, float | None]:
    """The figures of pycocotools. It gets results of one kind at a time: beside a box, the area of a mask would be
    that of the box. Missing areas are those of the masks, which it cannot fill in."""
    content = copy.deepcopy(content)
    for annotation in content["annotations"]:
        annotation.setdefault("area", float(coco_masks.area(annotation["segmentation"])))
    keys = ("image_id", "category_id", "score", "segmentation" if kind == "segm" else kind)
    truth = COCO()
    truth.dataset = content
    # A negative area makes a similarity infinite there, of an object that counts nowhere.
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(over="ignore"):
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes([{key: copy.copy(r[key]) for key in keys} for r in results]), kind)
        evaluator.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    names = KEYPOINT_NAMES if kind == "keypoints" else AREA_NAMES
    return {name: None if figure == -1 else figure for name, figure in zip(names, evaluator.stats, strict=True)}


def agree_on(seed: int) -> None:
    content, results = random_set(seed)
    report: Report = evaluate_results(coco.from_content(content, Path(f"set {seed}")), results)
    for kind, name in KINDS.items():
        theirs = of_coco_api(content, results, kind)
        assert report.figures[name] == pytest.approx(theirs, abs=1e-12), f"{name} of set {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 25, 50])
def test_figures_of_random_sets(first: int) -> None:
    for seed in range(first, first + 25):
        agree_on(seed)


@pytest.mark.slow
def test_figures_of_a_thousand_random_sets() -> None:
    for seed in range(75, 1000):
        agree_on(seed)

"""Images with very many objects: in portions, the figures are those of the whole image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.evaluation import figures, portions
from maskrcnn.evaluation.coco import Report, evaluate_results
from maskrcnn.structures.masks import RLE

SIZES = ((90, 120), (60, 50), (40, 40))


def entries(image: int, count: int, random: np.random.Generator, *, scored: bool) -> list[dict[str, Any]]:
    """Rectangles near the points of a grid, so that the objects and the detections of an image meet."""
    height, width = SIZES[image]
    made = []
    for place in range(count):
        x, y = (place * 13) % (width - 14), (place * 13 // (width - 14)) * 11 % (height - 14)
        x1, y1, w, h = x + random.integers(0, 3), y + random.integers(0, 3), *random.integers(7, 12, 2)
        dense = np.zeros(SIZES[image], dtype=bool)
        dense[y1 : y1 + h, x1 : x1 + w] = True
        mask = RLE.from_dense(dense)
        own = {"score": float(random.integers(1, 1000)) / 1000} if scored else {"iscrowd": int(place % 9 == 8)}
        label = 2 if place % 5 == 4 else 1
        box = [float(x1), float(y1), float(w), float(h)]
        made.append({"image_id": image, "category_id": label, "bbox": box, "segmentation": mask.to_coco(), **own})
    return made


def judged(limit: int = 110, apart: float = 0.0, **asked: Any) -> Report:
    """The report on the same objects and detections; `apart` keeps equal scores apart."""
    random = np.random.default_rng(0)
    objects = [e for image, count in enumerate((60, 12, 0)) for e in entries(image, count, random, scored=False)]
    found = [e for image, count in enumerate((280, 20, 5)) for e in entries(image, count, random, scored=True)]
    found = [{**one, "score": one["score"] + apart * i} for i, one in enumerate(found)]
    content = {
        "images": [{"id": i, "height": h, "width": w, "file_name": f"{i}.png"} for i, (h, w) in enumerate(SIZES)],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "other"}],
        "annotations": [{**one, "area": one["bbox"][2] * one["bbox"][3], "id": i} for i, one in enumerate(objects, 1)],
    }
    truth = coco.from_content(content, Path("truth"))
    return evaluate_results(truth, found, max_detections=limit, **asked)


def test_portions_give_the_figures_of_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judged(matching=0.2)
    assert whole.masks is not None
    recalls = [whole.masks[f"AR{limit}"] for limit in (1, 10, 100, 110)]
    assert recalls == sorted(set(recalls)), "each limit matters"
    for name, value in (("MOST_PAIRS", 40), ("PORTION", 12), ("_CELL", 10)):
        monkeypatch.setattr(portions, name, value)
    divided = judged(matching=0.2)
    assert divided.matching == whole.matching
    for of_parts, of_all in ((divided.masks, whole.masks), (divided.boxes, whole.boxes)):
        assert of_parts == pytest.approx(of_all, abs=1e-3)  # equal scores may change places
    assert replace(divided, masks=None, boxes=None, per_class={}) == replace(
        whole, masks=None, boxes=None, per_class={}
    )


def test_freed_memory_of_portions_returns_after_each_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(figures, "trim", lambda: calls.append(None))
    judged()
    assert not calls  # nothing is crowded
    monkeypatch.setattr(portions, "MOST_PAIRS", 40)
    judged()
    assert len(calls) == 2 * 4  # of masks and of boxes


def test_portions_give_the_errors_of_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judged(1000, 1e-6, analysis=True).analysis
    assert whole is not None
    assert min(whole.errors[name][0] for name in ("Cls", "Loc", "Dupe", "Bkg", "Miss")) > 0, "each kind matters"
    assert whole.examples.missed
    for name, value in (("MOST_PAIRS", 40), ("PORTION", 12), ("_CELL", 10)):
        monkeypatch.setattr(portions, name, value)
    divided = judged(1000, 1e-6, analysis=True).analysis
    assert divided is not None
    for name, (count, lost) in whole.errors.items():
        assert divided.errors[name][0] == count, name
        assert divided.errors[name][1] == pytest.approx(lost), name
    assert divided.thresholds == whole.thresholds
    assert divided.calibration == pytest.approx(np.array(whole.calibration))
    assert divided.precision == pytest.approx(whole.precision, nan_ok=True)
    assert divided.confusion.tolist() == whole.confusion.tolist()
    assert divided.examples == whole.examples


def test_no_portion_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    objects = [{**e, "iscrowd": 0} for e in entries(0, 60, random, scored=False)]
    found = entries(0, 150, random, scored=True)
    assert portions.portions(objects, found, SIZES[0], "segm") == [(objects, found)]
    for name, value in (("MOST_PAIRS", 40), ("PORTION", 12), ("_CELL", 10)):
        monkeypatch.setattr(portions, name, value)
    parts = portions.portions(objects, found, SIZES[0], "segm")
    assert len(parts) > 5
    for part, side in ((0, objects), (1, found)):
        assert sorted(id(entry) for pair in parts for entry in pair[part]) == sorted(map(id, side))

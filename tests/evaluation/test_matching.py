"""The matching score against a loop over every pair, and by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.errors import DataError
from maskrcnn.evaluation.coco import Report, evaluate_results
from maskrcnn.evaluation.matching import IOUS
from maskrcnn.evaluation.report import table
from maskrcnn.structures.masks import RLE

SIZE = (24, 24)
Box = tuple[int, int, int, int]  # x1 y1 x2 y2
boxes = st.tuples(*[st.integers(0, 11)] * 2, *[st.integers(12, 24)] * 2)


def bitmap(box: Box) -> np.ndarray:
    dense = np.zeros(SIZE, dtype=bool)
    dense[box[1] : box[3], box[0] : box[2]] = True
    return dense


def entry(image: int, box: Box, label: int = 1, **more: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    mask = RLE.from_dense(bitmap(box)).to_coco()
    own = {"image_id": image, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": mask}
    return own | more


def judged(objects: list[dict[str, Any]], found: list[dict[str, Any]], **options: Any) -> Report:
    content = {
        "images": [
            {"id": i, "height": SIZE[0], "width": SIZE[1], "file_name": f"{i}.png", "kind": i % 2} for i in (1, 2, 3)
        ],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "other"}],
        "annotations": [{"iscrowd": 0, "area": 1, **one, "id": i} for i, one in enumerate(objects, 1)],
    }
    return evaluate_results(coco.from_content(content, Path("truth")), found, matching=0.5, **options)


def iou(a: Box, b: Box) -> float:
    one, two = bitmap(a), bitmap(b)
    return float((one & two).sum() / (one | two).sum())


def test_scores_by_hand() -> None:
    objects = [entry(1, (0, 0, 10, 10)), entry(1, (12, 12, 24, 24)), entry(2, (0, 0, 10, 10))]
    found = [
        entry(1, (0, 0, 10, 10), score=0.9),
        entry(1, (0, 0, 10, 8), score=0.8),  # a second detection of the same object
        entry(1, (12, 12, 24, 24), label=2, score=0.8),  # another class
        entry(2, (0, 0, 10, 7), score=0.6),  # an IoU of 0.7
        entry(3, (0, 0, 9, 9), score=0.4),  # a score that is too low
    ]
    report = judged(objects, found, group_by="kind")
    assert report.matching is not None
    assert report.matching.scores == pytest.approx([(1 / 4 + 1) / 2] * 3 + [(1 / 4 + 0) / 2] * 2)
    assert report.matching.found == (2, 2, 2, 1, 1)
    assert report.matching.missed == (1, 1, 1, 2, 2)
    assert report.matching.extra == (2, 2, 2, 3, 3)
    assert report.to_dict()["matching"]["score"]["0.9"] == pytest.approx(1 / 8)
    lines = str(table(report)).splitlines()
    assert lines[lines.index("matching score of detections from 0.5, by IoU") + 2 :][:3] == [
        "0        1.000 1.000 1.000 0.000 0.000",
        "1        0.250 0.250 0.250 0.250 0.250",
        "images   0.625 0.625 0.625 0.125 0.125",
    ]


def test_an_object_is_found_once() -> None:
    matching = judged([entry(1, (0, 0, 10, 10))], [entry(1, (0, 0, 10, 10), score=s) for s in (0.9, 0.8, 0.7)]).matching
    assert matching is not None
    assert (matching.found, matching.missed, matching.extra) == ((1,) * 5, (0,) * 5, (2,) * 5)


def test_detections_of_a_crowd_region_and_beyond_the_limit_do_not_count() -> None:
    objects = [entry(1, (0, 0, 20, 20), iscrowd=1), entry(1, (20, 20, 24, 24))]
    inside = [entry(1, (1, 1, 9, 9), score=0.9), entry(1, (5, 5, 15, 15), score=0.8)]
    report = judged(objects, [*inside, entry(1, (20, 20, 24, 24), score=0.7)])
    assert report.matching is not None
    assert report.matching.scores == (1.0,) * 5
    limited = judged([entry(1, (0, 0, 9, 9))], [*inside, entry(1, (0, 0, 9, 9), score=0.7)], max_detections=1)
    assert limited.matching is not None
    assert limited.matching.extra[-1] == 1, "only the first detection counts"


def test_masks_are_needed() -> None:
    boxed = {name: value for name, value in entry(1, (0, 0, 9, 9), score=0.9).items() if name != "segmentation"}
    with pytest.raises(DataError, match="matching compares masks"):
        judged([entry(1, (0, 0, 9, 9))], [boxed])


@given(st.lists(boxes, min_size=1, max_size=3), st.lists(boxes, max_size=4))
def test_counts_are_those_of_a_loop_over_all_pairs(objects: list[Box], found: list[Box]) -> None:
    scored = [entry(1, box, score=0.9 - i / 10) for i, box in enumerate(found)]
    matching = judged([entry(1, box) for box in objects], scored).matching
    assert matching is not None
    for k, threshold in enumerate(IOUS):
        free, hits = set(range(len(objects))), 0
        for box in found:
            best = max(free, key=lambda i, box=box: (iou(objects[i], box), -i), default=None)  # type: ignore[misc]
            if best is not None and iou(objects[best], box) >= threshold:
                free.remove(best)
                hits += 1
        assert (matching.found[k], matching.missed[k], matching.extra[k]) == (
            hits,
            len(objects) - hits,
            len(found) - hits,
        )
        assert matching.scores[k] == pytest.approx(hits / (len(objects) + len(found) - hits))
    assert all(a >= b for a, b in itertools.pairwise(matching.found)), "a higher IoU never finds more"

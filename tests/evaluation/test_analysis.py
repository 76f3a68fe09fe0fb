"""What an evaluation says about mistakes: errors by kind, confused classes, thresholds, and where to look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.evaluation.analysis import Analysis, best_threshold
from maskrcnn.evaluation.coco import evaluate_results

CLASSES = [{"id": 4, "name": "owl"}, {"id": 9, "name": "bat"}]


def written(folder: Path) -> Path:
    """Three images of 100 x 100 pixels with ids in no order. The first has two owls and a crowd of bats, the second a
    bat, the third nothing."""
    places = [(30, 4, [0, 0, 20, 20], 0), (30, 4, [50, 0, 20, 20], 0), (30, 9, [0, 50, 40, 40], 1)]
    places.append((20, 9, [10, 10, 60, 60], 0))
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 100, "width": 100} for i in (30, 20, 10)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": label, "bbox": box, "iscrowd": crowd, "area": box[2] * box[3]}
            for i, (image, label, box, crowd) in enumerate(places, start=1)
        ],
        "categories": CLASSES,
    }
    (folder / "set.json").write_text(json.dumps(content))
    return folder / "set.json"


def entry(image: int, label: int, box: list[int], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": label, "bbox": box, "score": score}


def analysis_of(folder: Path, results: list[dict[str, Any]]) -> Analysis:
    found = evaluate_results(read_dataset(written(folder)), results, analysis=True).analysis
    assert found is not None
    return found


def test_each_mistake_is_counted_once_and_can_be_looked_at(tmp_path: Path) -> None:
    results = [
        entry(10, 4, [5, 5, 10, 10], 0.9),  # nothing is there
        entry(30, 4, [0, 0, 20, 20], 0.8),
        entry(30, 9, [50, 0, 20, 20], 0.7),  # an owl
        entry(30, 9, [5, 60, 20, 20], 0.6),  # in the crowd
    ]
    found = analysis_of(tmp_path, results)
    assert {name: count for name, (count, _) in found.errors.items()} == {
        "Cls": 1,
        "Loc": 0,
        "Both": 0,
        "Dupe": 0,
        "Bkg": 1,
        "Miss": 1,
    }
    assert found.confusion.tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert [found.examples.found[image][place]["score"] for image, place in found.examples.wrong] == [0.9, 0.7]
    assert found.examples.missed == ((20, 0), (30, 1))
    assert found.examples.sample == (30, 20, 10)
    owl, bat = found.thresholds
    assert owl is not None
    assert (owl.score, owl.precision, owl.recall, owl.f1) == (0.8, 0.5, 0.5, 0.5)
    assert bat is None
    assert sum(count for _, _, count in found.calibration) == 3  # the crowd is not judged
    assert np.isclose(found.precision[0, 0, 0], 0.5)


def test_without_detections_all_is_missed(tmp_path: Path) -> None:
    found = analysis_of(tmp_path, [])
    assert found.errors["Miss"][0] == 3
    assert found.examples.missed == ((20, 0), (30, 0), (30, 1))
    assert found.thresholds == (None, None)
    assert found.calibration == ()
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("scores", "right", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0], 0.8),
        ([0.6, 0.7, 0.8, 0.9], [1, 0, 1, 1], 0.6),
        ([0.5, 0.5, 0.5], [1, 0, 0], 0.5),
    ],
)
def test_the_best_threshold_has_the_highest_f1(scores: list[float], right: list[int], expected: float) -> None:
    threshold = best_threshold(np.array(scores), np.array(right, dtype=bool), objects=3)
    assert threshold is not None
    assert threshold.score == expected
    kept = np.array(scores) >= threshold.score
    hits = float(np.array(right)[kept].sum())
    assert np.isclose(threshold.f1, 2 * hits / (kept.sum() + 3))

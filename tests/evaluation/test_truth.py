"""A data set without an object that a figure counts is refused, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.errors import DataError
from maskrcnn.evaluation.truth import require_objects
from maskrcnn.structures.dataset import Dataset


def dataset(change: Callable[[dict[str, Any]], object] = lambda annotation: None) -> Dataset:
    """Two images with three annotated boxes, each changed in place."""
    annotations = [
        {"id": i, "image_id": image_id, "category_id": 1, "bbox": [3, 4, 20, 10], "area": 200}
        for i, image_id in enumerate(("a", "a", "b"), start=1)
    ]
    for annotation in annotations:
        change(annotation)
    images = [{"id": name, "file_name": f"{name}.png", "height": 40, "width": 50} for name in ("a", "b")]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    return coco.from_content(content, Path("cells.json"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.update(iscrowd=1), r"each of its 3 annotations is a crowd region$"),
        (lambda a: a.update(area=-200), r"each of its 3 objects has an area below 0 or above 10\^10 square pixels"),
        (lambda a: a.update(area=1e11), r"each of its 3 objects has an area below 0 or above"),
        (lambda a: a.update(area=-1, iscrowd=a["id"] % 2), r"each of its 1 objects has an area below 0"),
        (
            lambda a: a.update(image_id="c"),
            r"no annotation of its 2 images can be used; 3 entries were left out, first:",
        ),
    ],
)
def test_nothing_to_judge_by(change: Callable[[dict[str, Any]], object], reason: str) -> None:
    with pytest.raises(DataError, match=rf"^cells\.json: expected objects to judge by, found none: .*{reason}"):
        require_objects(dataset(change))


def test_one_object_is_enough() -> None:
    require_objects(dataset(lambda a: a.update(iscrowd=int(a["id"] != 2), area=float("nan"))))


def test_only_the_images_of_a_subset_count() -> None:
    whole = dataset(lambda a: a.update(iscrowd=int(a["image_id"] == "a")))
    require_objects(whole)
    require_objects(whole.subset([1]))
    with pytest.raises(DataError, match="each of its 2 annotations is a crowd region"):
        require_objects(whole.subset([0]))

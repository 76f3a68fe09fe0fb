"""The rules of the builder: what is kept for training and evaluation alike, and what is left out and named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.config import Category
from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.errors import DataError
from maskrcnn.evaluation.coco import evaluate_results
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE

PATH = Path("some.file")
SIZE = (40, 50)
SQUARE = [[10, 5, 18, 5, 18, 13, 10, 13]]
BOX = [10, 5, 8, 8]


def built(*raws: RawAnnotation, strict: bool = False, **options: Any) -> Dataset:
    """One image of id 1 and two categories, with these annotations."""
    builder = DatasetBuilder(PATH, strict=strict, **options)
    builder.add_category("b", "second")
    builder.add_category(7, "first", keypoints=("head", "tail"))
    builder.add_image(1, Path("1.png"), *SIZE, {"light": "day"})
    for raw in raws:
        builder.add_annotation(raw)
    return builder.build()


def raw(**fields: Any) -> RawAnnotation:
    return RawAnnotation(**{"image_id": 1, "category_id": "b", "box": BOX, "polygons": SQUARE, **fields})


def bitmap(x: int, y: int, side: int) -> np.ndarray:
    found = np.zeros(SIZE, dtype=bool)
    found[y : y + side, x : x + side] = True
    return found


def test_numbers_come_before_words_and_annotations_stand_by_image() -> None:
    builder = DatasetBuilder(PATH)
    for number in ("b", 7, "a", 2):
        builder.add_category(number, f"class {number}")
    for number in ("x", 5):
        builder.add_image(number, Path(f"{number}.png"), *SIZE, {})
    for image_id, category_id in ((5, 7), ("x", "a"), (5, "b"), ("x", 2)):
        builder.add_annotation(raw(image_id=image_id, category_id=category_id))
    dataset = builder.build()
    assert [category.id for category in dataset.categories] == [2, 7, "a", "b"]
    assert [(record.image_id, record.first, record.count) for record in dataset.records] == [("x", 0, 2), (5, 2, 2)]
    assert [dataset.annotations(i).labels.tolist() for i in range(2)] == [[2, 0], [1, 3]]
    assert [dataset.annotations(i).ids.tolist() for i in range(2)] == [[2, 4], [1, 3]], "numbers for missing ids"


def test_the_same_mask_as_polygons_run_lengths_and_bitmap() -> None:
    mask = RLE.from_dense(bitmap(10, 5, 8))
    runs = raw(polygons=None, rle=mask.to_coco())
    dataset = built(raw(), runs, runs._replace(pixels=64), raw(polygons=None, bitmap=bitmap(10, 5, 8)), strict=True)
    found = dataset.annotations(0)
    assert found.masks() == [mask] * 4
    assert [math.isnan(area) for area in found.areas] == [True, True, False, True]
    assert found.areas[2] == 64, "counted by whoever read the run lengths"


def test_boxes_stay_as_annotated_and_missing_ones_are_those_of_the_masks() -> None:
    dataset = built(raw(box=[-5, 3, 70.5, 9]), raw(box=None), raw(box=[]), strict=True)
    found = dataset.annotations(0)
    assert found.annotated_boxes.tolist() == [[-5, 3, 70.5, 9], BOX, BOX]
    assert found.boxes.tolist() == [[0, 3, 50, 12], [10, 5, 18, 13], [10, 5, 18, 13]]


def test_a_box_outside_is_kept_with_a_mask_alone() -> None:
    dataset = built(raw(box=[60, 5, 8, 8]), raw(box=[60, 5, 8, 8], polygons=[]))
    assert dataset.annotations(0).boxes.tolist() == [[10, 5, 18, 13]]
    assert dataset.problems == (
        "some.file: annotation 2 of image 1: bbox [60, 5, 8, 8] has no area inside the image of 50 x 40 pixels",
    )


def test_polygons_that_cover_no_pixel_are_objects_if_they_have_area() -> None:
    """The COCO API counts them; a bow tie, whose signed area is zero, covers pixels."""
    small = [[10.1, 5.1, 10.2, 5.1, 10.2, 5.2]]
    tie = [[5, 5, 15, 15, 15, 5, 5, 15]]
    line = [[1, 1, 5, 5, 9, 9]]
    dataset = built(raw(polygons=small), raw(polygons=tie), raw(polygons=line), raw(polygons=small, box=None))
    areas = [mask.area for mask in dataset.annotations(0).masks() if mask is not None]
    assert areas[0] == 0
    assert areas[1] > 0
    assert [problem.split(": ", 2)[2] for problem in dataset.problems] == [
        "the polygon has no area",
        "the segmentation covers no pixel of its image",
    ]


def test_ids_are_unique_where_there_are_any() -> None:
    dataset = built(raw(id="a"), raw(id="a"), raw(), raw(id=[1]), raw(id=None))
    assert dataset.annotations(0).ids.tolist() == ["a", 3, 4, 5]
    assert dataset.problems == (
        "some.file: annotation 'a' of image 1: expected a unique id, found a second annotation with it",
    )


@pytest.mark.parametrize(
    ("area", "expected"), [(12.5, 12.5), (-3, -3), (None, None), (math.nan, None), ("9", None), (10**400, None)]
)
def test_areas_are_kept_where_they_are_numbers(area: Any, expected: float | None) -> None:
    (found,) = built(raw(area=area)).annotations(0).areas
    assert math.isnan(found) if expected is None else found == expected


def test_keypoints_are_shifted_where_they_are_labelled() -> None:
    points = [4, 6, 2, 9, 9, 0]
    dataset = built(raw(category_id=7, keypoints=points), raw(keypoints=points), raw(category_id=7), keypoint_shift=0.5)
    found = dataset.annotations(0).keypoints
    assert found is not None
    assert found.tolist() == [[[4.5, 6.5, 2], [0, 0, 0]], [[0] * 3] * 2, [[0] * 3] * 2]


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "unknown image": ({"image_id": 2}, "annotation 1 of image 2: no image has this id"),
    "no image": ({"image_id": [1]}, r"of image \[1\]: no image has this id"),
    "truth is no id": ({"image_id": True}, "of image True: no image has this id"),
    "unknown category": ({"category_id": "7"}, "no category has id '7'"),
    "nothing": ({"box": None, "polygons": None}, "expected a segmentation or a bbox, found neither"),
    "box of three": ({"box": [1, 2, 3]}, "expected bbox as four finite numbers"),
    "box of words": ({"box": [1, 2, 3, "4"]}, "expected bbox as four finite numbers"),
    "box too large": ({"box": [1, 2, 3, 10**400]}, "expected bbox as four finite numbers"),
    "box backwards": ({"box": [10, 10, -3, 5]}, "has no area"),
    "polygon of words": ({"polygons": [["a"]]}, "expected polygons as lists of numbers"),
    "polygon too large": ({"polygons": [[10**400] * 6]}, "expected polygons as lists of numbers"),
    "polygon of pairs": ({"polygons": [[[1, 2], [3, 4], [5, 9]]]}, "expected polygons as lists of numbers"),
    "mask of another size": ({"polygons": None, "bitmap": np.ones((3, 3))}, r"found \(3, 3\)"),
    "empty mask": ({"polygons": None, "bitmap": np.zeros(SIZE)}, "covers no pixel"),
    "broken run lengths": ({"polygons": None, "rle": {"size": [40, 50]}}, "'size' and 'counts'"),
    "keypoints": ({"category_id": 7, "keypoints": [1, 2]}, "expected keypoints as 6 numbers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_left_out_and_named_or_refused(name: str) -> None:
    fields, words = BROKEN[name]
    dataset = built(raw(**fields), raw())
    assert len(dataset.annotations(0)) == 1
    with pytest.raises(DataError, match=words) as caught:
        built(raw(**fields), strict=True)
    assert dataset.problems == (str(caught.value),)
    assert str(caught.value).startswith("some.file: ")


def test_training_and_evaluation_count_the_same_objects() -> None:
    kept = [raw(box=[60, 5, 8, 8]), raw(box=None), raw(polygons=None), raw(crowd=True)]
    dataset = built(*kept, *(raw(**fields) for fields, _ in BROKEN.values()))
    report = evaluate_results(dataset, [])
    assert report.objects == int((~dataset.annotations(0).crowd).sum()) == 3
    assert set(dataset.problems) < set(report.skipped)
    assert len(dataset.problems) == len(BROKEN)


def test_an_empty_data_set_is_refused() -> None:
    builder = DatasetBuilder(PATH)
    with pytest.raises(DataError, match=r"some\.file: expected at least one category"):
        builder.build()
    builder.add_category(1, "a")
    with pytest.raises(DataError, match="the data set is empty: it has no images"):
        builder.build()
    builder.add_image(None, Path("a.png"), *SIZE, {})
    with pytest.raises(DataError, match=r"none of its images can be used; first: .*expected images with an id"):
        builder.build()


def test_categories_and_images_of_one_id_are_refused() -> None:
    builder = DatasetBuilder(PATH)
    builder.add_category(1, "a", sigmas=())
    with pytest.raises(DataError, match="two categories have id 1"):
        builder.add_category(1, "b")
    with pytest.raises(DataError, match=r"some\.file: category b: expected sigmas as 1 numbers between 0 and 1"):
        builder.add_category(2, "b", keypoints=("head",), sigmas=(1.5,))
    builder.add_image(1, Path("a.png"), *SIZE, {})
    with pytest.raises(DataError, match="two images have id 1"):
        builder.add_image(1, Path("b.png"), *SIZE, {})
    assert builder.build().categories == (Category(1, "a"),)

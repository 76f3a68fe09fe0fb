"""The rules of the builder: what is kept for training and evaluation alike, and what is left out and named."""

from __future__ import annotations

import math
from collections.abc import Callable
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


def test_a_data_set_without_images_says_so_and_not_that_its_annotations_have_none() -> None:
    builder = DatasetBuilder(PATH)
    builder.add_category("b", "only")
    builder.add_annotation(raw())
    with pytest.raises(DataError, match=r"the data set is empty: it has no images$"):
        builder.build()


def test_a_data_set_without_categories_gives_the_reason() -> None:
    builder = DatasetBuilder(PATH)
    builder.problem("line 2: expected a class")
    with pytest.raises(DataError, match=r"category with id and name, found none; first: line 2: expected a class$"):
        builder.build()


def test_an_annotation_of_an_image_that_is_left_out_says_so() -> None:
    builder = DatasetBuilder(PATH)
    builder.add_category("b", "only")
    builder.add_image(1, Path("1.png"), *SIZE, {})
    builder.add_image(2, Path("2.png"), "40", 50, {})
    for image_id in (2, 3):
        builder.add_annotation(raw(image_id=image_id))
    assert builder.build().problems[1:] == (
        f"{PATH}: annotation 1 of image 2: its image is left out",
        f"{PATH}: annotation 2 of image 3: no image has this id",
    )


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
    assert areas[0] == areas[2] == 0
    assert areas[1] > 0
    assert [problem.split(": ", 2)[2] for problem in dataset.problems] == ["the mask covers no pixel of its image"]
    assert [note.rsplit(": ", 1)[1] for note in dataset.notes] == ["the polygon has no area"]


def test_ids_are_unique_where_there_are_any() -> None:
    dataset = built(raw(id="a"), raw(id="a", area=9), raw(), raw(id=[1]), raw(id=None))
    assert dataset.annotations(0).ids.tolist() == ["a", 2, 3, 4, 5]
    assert dataset.problems == ()
    assert dataset.notes == (
        "some.file: an id that is not unique is ignored (annotations: 1), first: annotation 'a' of image 1: expected a "
        "unique id, found it in annotations 1 and 2 of the file",
    )


@pytest.mark.parametrize(
    "other",
    [
        {"category_id": 7},
        {"box": [10, 5, 8, 9]},
        {"polygons": [[10, 5, 18, 5, 18, 14, 10, 13]]},
        {"polygons": None},
        {"area": 5},
        {"crowd": 1},
    ],
)
def test_an_annotation_that_repeats_another_in_everything_is_left_out(other: dict[str, Any]) -> None:
    dataset = built(raw(id="a"), raw(id="a", **other), raw(id="a"))
    assert len(dataset.annotations(0)) == 2
    assert dataset.problems == (
        "some.file: annotation 'a' of image 1: expected a unique id, found the same as annotation 1 of the file",
    )
    points = raw(id=3, category_id=7, keypoints=[1, 1, 2, 3, 3, 1])
    moved = points._replace(keypoints=[1, 1, 2, 3, 4, 1])
    assert [len(built(points, another).annotations(0)) for another in (points, moved)] == [1, 2]
    with pytest.raises(DataError, match="found the same as annotation 1"):
        built(raw(id="a"), raw(id="a"), strict=True)


def test_an_image_that_repeats_another_in_everything_is_left_out() -> None:
    def of_images(second: dict[str, Any], strict: bool = False) -> Dataset:
        builder = DatasetBuilder(PATH, strict=strict)
        builder.add_category(1, "cell")
        builder.add_image(1, Path("1.png"), *SIZE, {"light": "day"})
        builder.add_image(
            **{"number": 1.0, "path": "1.png", "height": 40, "width": 50, "fields": {"light": "day"}, **second}
        )
        return builder.build()

    dataset = of_images({})
    assert len(dataset) == 1
    said = "some.file: image 1.0: expected one entry for each image, found the same entry before"
    assert dataset.problems == (said,)
    with pytest.raises(DataError, match=said):
        of_images({}, strict=True)
    for other in ({"path": "2.png"}, {"height": 41}, {"fields": {}}):
        with pytest.raises(DataError, match=r"some.file: two images have id 1.0, 1.png and .\.png: annotations cannot"):
            of_images(other)


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
    "unknown category": ({"category_id": "8"}, "no category has id '8'"),
    "nothing": ({"box": None, "polygons": None}, "expected a segmentation or a bbox, found neither"),
    "box of three": ({"box": [1, 2, 3], "polygons": []}, "expected bbox as four finite numbers"),
    "box of words": ({"box": [1, 2, 3, "4"], "polygons": []}, "expected bbox as four finite numbers"),
    "box too large": ({"box": [1, 2, 3, 10**400], "polygons": []}, "expected bbox as four finite numbers"),
    "box beyond any image": ({"box": [1, 2, 1e300, 4], "polygons": []}, "reaches too far for any image"),
    "polygon beyond any image": ({"polygons": [[1, 1, 2e9, 5, 9, 9]]}, r"reaches 2e\+09 pixels away, too far"),
    "box backwards": ({"box": [10, 10, -3, 5], "polygons": []}, "has no area"),
    "polygon of words": ({"polygons": [["a"]]}, "expected polygons as lists of numbers"),
    "polygon too large": ({"polygons": [[10**400] * 6]}, "expected polygons as lists of numbers"),
    "polygon of triples": ({"polygons": [[[1, 2, 3], [3, 4, 5]]]}, "expected polygons as lists of numbers"),
    "mask of another size": ({"polygons": None, "bitmap": np.ones((3, 3))}, r"found \(3, 3\)"),
    "empty mask without a box": ({"box": None, "polygons": None, "bitmap": np.zeros(SIZE)}, "covers no pixel"),
    "broken run lengths": ({"polygons": None, "rle": {"size": [40, 50]}}, "'size' and 'counts'"),
    "turned mask": ({"polygons": None, "bitmap": np.ones(SIZE[::-1])}, "height and width are swapped"),
    "crowd of words": ({"crowd": "perhaps"}, "expected iscrowd as 0 or 1, found 'perhaps'"),
    "no part": ({"polygons": [[1, 1, 5, 5], [math.nan] * 6]}, "at least 3 points, found 4 numbers"),
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


@pytest.mark.parametrize("corners", [(lambda square: square), (lambda square: np.reshape(square, (-1, 2)).tolist())])
@pytest.mark.parametrize("outside", [lambda polygon: polygon, lambda polygon: [polygon]])
def test_a_single_polygon_may_lack_the_list_around_it_and_may_be_pairs(
    corners: Callable[[Any], Any], outside: Callable[[Any], Any]
) -> None:
    dataset = built(raw(polygons=outside(corners(SQUARE[0]))), raw())
    found = dataset.annotations(0).masks()
    assert found[0] == found[1]
    assert dataset.problems == dataset.notes == ()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"polygons": None, "bitmap": np.zeros(SIZE)}, "the mask covers no pixel"),
        ({"polygons": None, "rle": {"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}}, "the mask covers no pixel"),
        ({"polygons": [[3, 3, 3, 3, 3, 3]]}, "the polygon has no area"),
    ],
)
def test_an_object_with_a_box_survives_a_mask_without_a_pixel(fields: dict[str, Any], words: str) -> None:
    dataset = built(raw(**fields), raw())
    found = dataset.annotations(0)
    assert found.boxes.tolist() == [[10, 5, 18, 13]] * 2
    assert found.rle(0).area == 0
    assert found.crops([0])[0][0].size == 0, "without a crop no mask is learned"
    assert words in dataset.notes[0]
    with pytest.raises(DataError, match=words):
        built(raw(**fields), strict=True)


REPAIRED: dict[str, tuple[dict[str, Any], str]] = {
    "a part of two points": ({"polygons": [*SQUARE, [1, 1, 5, 5]]}, "at least 3 points, found 4 numbers"),
    "an odd part": ({"polygons": [[1, 1, 5, 5, 9, 9, 3], *SQUARE]}, "at least 3 points, found 7 numbers"),
    "a part that is not finite": ({"polygons": [*SQUARE, [1, 1, math.nan, 5, 9, 9]]}, "not a finite number"),
    "a part of words": ({"polygons": [*SQUARE, "part"]}, "expected polygons as lists of numbers"),
    "an empty part": ({"polygons": [[], *SQUARE]}, "at least 3 points, found 0 numbers"),
    "box of zeros": ({"box": [0, 0, 0, 0]}, "has no area"),
    "box backwards": ({"box": [18, 13, -8, -8]}, "has no area"),
    "box of three": ({"box": [10, 5, 8]}, "expected bbox as four finite numbers"),
    "box that is not finite": ({"box": [10, 5, math.inf, 8]}, "expected bbox as four finite numbers"),
    "id of another": ({"id": "other", "area": 63}, "expected a unique id"),
}


@pytest.mark.parametrize("name", REPAIRED)
def test_an_object_survives_a_bad_part(name: str) -> None:
    fields, words = REPAIRED[name]
    dataset = built(raw(id="other"), raw(**fields))
    found = dataset.annotations(0)
    assert found.annotated_boxes.tolist() == [BOX] * 2
    assert found.masks()[0] == found.masks()[1]
    assert dataset.problems == ()
    assert len(dataset.notes) == 1
    assert evaluate_results(dataset, []).objects == 2
    with pytest.raises(DataError, match=words) as caught:
        built(raw(id="other"), raw(**fields), strict=True)
    assert str(caught.value).removeprefix("some.file: ") in dataset.notes[0]


def test_repairs_of_one_kind_are_one_note() -> None:
    dataset = built(*(raw(box=[0, 0, 0, 0], id=7, area=area) for area in range(9)))
    assert len(set(dataset.annotations(0).ids.tolist())) == 9
    assert [note.partition(", first")[0] for note in dataset.notes] == [
        "some.file: the box of the mask replaces the bbox (annotations: 9)",
        "some.file: an id that is not unique is ignored (annotations: 8)",
    ]


def test_an_annotation_without_an_id_takes_none_that_another_has() -> None:
    assert built(raw(), raw(id=1), raw(id="x"), raw(id=5)).annotations(0).ids.tolist() == [6, 1, "x", 5]


@pytest.mark.parametrize(
    ("crowd", "flags"),
    [(False, ("0", "false", "False", "", None, 0, 0.0, False)), (True, ("1", "true", 1, 1.0, True))],
)
def test_a_crowd_flag_may_be_text(crowd: bool, flags: tuple[Any, ...]) -> None:
    dataset = built(*(raw(crowd=flag) for flag in flags), strict=True)
    assert dataset.annotations(0).crowd.tolist() == [crowd] * len(flags)


def test_ids_may_be_numbers_here_and_text_there() -> None:
    dataset = built(raw(image_id="1"), raw(category_id="7"), raw())
    assert dataset.annotations(0).ids.tolist() == [1, 2, 3]
    assert dataset.problems == ()
    assert len(dataset.notes) == 1
    assert (
        "(annotations: 2), first: annotation 1 of image '1': expected all ids as numbers or all as" in dataset.notes[0]
    )
    with pytest.raises(DataError, match="expected all ids as numbers or all as text, found '7'"):
        built(raw(category_id="7"), strict=True)


def test_whole_numbers_may_have_a_decimal_point() -> None:
    builder = DatasetBuilder(PATH, strict=True)
    builder.add_category(7.0, "a")
    builder.add_image(1.0, Path("a.png"), 40.0, 50.0, {})
    builder.add_annotation(raw(image_id=1, category_id=7.0, id=3.0))
    dataset = builder.build()
    assert (dataset.records[0].image_id, dataset.records[0].size) == (1, SIZE)
    assert (dataset.categories[0].id, dataset.annotations(0).ids.tolist()) == (7, [3])


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

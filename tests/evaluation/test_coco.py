"""COCO figures: the published numbers, limits, subsets, and refusal of what cannot be compared."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.errors import DataError
from maskrcnn.evaluation.coco import Report, evaluate_results
from maskrcnn.evaluation.report import table
from maskrcnn.structures.masks import RLE

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
SIZE = (60, 80)


def judged(content: Any, results: Any, **options: Any) -> Report:
    """The figures of results against the content of a COCO JSON."""
    return evaluate_results(coco.from_content(content, Path("ground truth")), results, **options)


def square(x: int, y: int, side: int) -> dict[str, Any]:
    bitmap = np.zeros(SIZE, dtype=bool)
    bitmap[y : y + side, x : x + side] = True
    return RLE.from_dense(bitmap).to_coco()


def truth(squares: dict[int, list[tuple[int, int, int]]]) -> dict[str, Any]:
    """Images 1.. with squares (x, y, side) of class 7; class 3 has no object."""
    content: dict[str, Any] = {
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1], "file_name": f"{i}.png"} for i in squares],
        "categories": [{"id": 7, "name": "square"}, {"id": 3, "name": "other"}],
        "annotations": [],
    }
    for image_id, found in squares.items():
        for x, y, side in found:
            number = len(content["annotations"]) + 1
            content["annotations"].append(
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": 7,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                    "segmentation": square(x, y, side),
                }
            )
    return content


def perfect(content: dict[str, Any], score: float = 0.9) -> list[dict[str, Any]]:
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{**{key: a[key] for key in keys}, "score": score} for a in content["annotations"]]


GRID = [(x, y, 6) for y in range(0, 60, 10) for x in range(0, 80, 10)]  # 48 squares that do not touch
ONE = truth({1: [(10, 10, 20)], 2: []})


@pytest.mark.parametrize(("kind", "key"), [("segm", "masks"), ("bbox", "boxes")])
def test_published_numbers_of_the_fake_results(shared: Path, kind: str, key: str) -> None:
    folder = shared / "data" / "cocoeval"
    section = (folder / "val2014_fake_eval_res.txt").read_text().split(f"type={kind}")[1].split("type=")[0]
    printed = re.findall(r"= (-?\d\.\d{3})$", section, flags=re.MULTILINE)
    assert len(printed) == 12
    report = evaluate_results(
        read_dataset(folder / "instances_val2014_100.json"), folder / f"instances_val2014_fake{kind}100_results.json"
    )
    figures = report.to_dict()[key]
    assert {name: f"{figures[name]:.3f}" for name in NAMES} == dict(zip(NAMES, printed, strict=True))
    assert (report.images, report.detections, report.skipped) == (100, 734, ())
    if kind == "bbox":
        assert report.masks is None


def test_perfect_results() -> None:
    report = judged(ONE, perfect(ONE))
    assert report.masks is not None
    for figures in (report.masks, report.boxes):
        assert tuple(figures) == NAMES
        assert figures["AP"] == pytest.approx(1)
        assert figures["APs"] == pytest.approx(1)
        assert figures["APl"] is None, "no large object: undefined, not 0 and not -1"
    assert report.per_class == {
        "square": {"masks": pytest.approx(1), "boxes": pytest.approx(1)},
        "other": {"masks": None, "boxes": None},
    }
    assert (report.images, report.objects, report.detections) == (2, 1, 1)
    assert report.score == pytest.approx(1)
    assert json.loads(report.to_json()) == report.to_dict()


def test_thresholds_of_overlap() -> None:
    # 20 x 20 found as 20 x 13: an IoU of 0.65 counts at 0.50, 0.55, 0.60 and 0.65.
    results = [{"image_id": 1, "category_id": 7, "score": 0.9, "bbox": [10, 10, 20, 13]}]
    boxes = judged(ONE, results).boxes
    assert (boxes["AP50"], boxes["AP75"]) == (pytest.approx(1), 0)
    assert (boxes["AP"], boxes["AR1"]) == (pytest.approx(0.4), pytest.approx(0.4))
    close = judged(ONE, [{**results[0], "bbox": [10, 10, 20, 15]}]).boxes
    assert close["AP75"] == pytest.approx(1)
    assert close["AP"] == pytest.approx(0.6)
    low = judged(ONE, [{**results[0], "bbox": [10, 10, 20, 10]}]).boxes
    assert low["AP50"] == pytest.approx(1)
    assert low["AP"] == pytest.approx(0.1)


def test_images_without_results_count() -> None:
    content = truth({1: [(10, 10, 20)], 2: [(10, 10, 20)]})
    assert judged(content, perfect(content)[:1]).boxes["AR100"] == pytest.approx(0.5)


def test_no_results_at_all_is_zero() -> None:
    report = judged(ONE, [])
    assert report.masks is not None
    assert report.masks["AP"] == report.boxes["AP"] == report.score == 0


def test_images_without_objects_are_undefined() -> None:
    report = judged(ONE, perfect(ONE), image_ids=[2])
    assert report.masks is not None
    assert report.masks["AP"] is report.boxes["AP"] is report.score is None
    assert report.undefined == "no AP is defined: 1 images were judged, with 0 objects to find"
    assert "NaN" not in report.to_json()
    assert judged(ONE, perfect(ONE)).undefined is None


def test_results_with_boxes_only_give_no_mask_figures() -> None:
    results = [{key: value for key, value in entry.items() if key != "segmentation"} for entry in perfect(ONE)]
    report = judged(ONE, results)
    assert report.masks is None
    assert report.boxes["AP"] == report.score == pytest.approx(1)
    assert report.to_dict()["masks"] is None


def test_boxes_come_from_masks_where_they_are_missing() -> None:
    results = [{key: value for key, value in entry.items() if key != "bbox"} for entry in perfect(ONE)]
    content = truth({1: [(10, 10, 20)]})
    del content["annotations"][0]["bbox"], content["annotations"][0]["area"], content["annotations"][0]["iscrowd"]
    report = judged(content, results)
    assert report.boxes["AP"] == pytest.approx(1)
    assert report.boxes["APs"] == pytest.approx(1), "the area, 400 pixels, comes from the mask too"


def test_area_of_a_found_mask_is_its_own_not_that_of_its_box() -> None:
    # A thin L whose box is medium: unmatched, it is a false positive among the small objects only.
    bitmap = np.zeros(SIZE, dtype=bool)
    bitmap[5:55, 5:7] = bitmap[53:55, 5:55] = True
    wrong = {"image_id": 1, "category_id": 7, "score": 0.95, "bbox": [5, 5, 50, 50]}
    wrong["segmentation"] = RLE.from_dense(bitmap).to_coco()
    content = truth({1: [(60, 10, 10), (20, 8, 40)]})
    report = judged(content, [wrong, *perfect(content)])
    assert report.masks is not None
    assert report.masks["APm"] == pytest.approx(1)
    assert report.masks["APs"] == pytest.approx(0.5)


def test_limit_of_detections_holds_for_precision_and_recall() -> None:
    content = truth({1: [*GRID]})
    results = perfect(content)
    assert judged(content, results, max_detections=48).boxes["AP"] == pytest.approx(1)
    limited = judged(content, results, max_detections=12)
    assert limited.masks is not None
    for figures in (limited.masks, limited.boxes):
        assert figures["AR1"] == pytest.approx(1 / 48)
        assert figures["AR10"] == pytest.approx(10 / 48)
        assert figures["AR100"] == pytest.approx(12 / 48)
        assert figures["AP"] == pytest.approx(26 / 101), "the recall points 0, 0.01, ..., 0.25"
        assert tuple(figures) == NAMES


def test_limit_above_100_holds_for_precision_and_recall() -> None:
    content = truth({1: [(x, y, 4) for y in range(0, 60, 5) for x in range(0, 80, 5)]})  # 192 squares
    report = judged(content, perfect(content), max_detections=200)
    assert report.boxes["AP"] == pytest.approx(1)
    assert report.boxes["AR100"] == pytest.approx(100 / 192), "AR100 stays what its name says"
    assert report.boxes["AR200"] == report.boxes["ARs"] == pytest.approx(1)
    standard = judged(content, perfect(content))
    assert standard.boxes["ARs"] == standard.boxes["AR100"] == pytest.approx(100 / 192)
    assert "AR200" not in standard.boxes


def test_limit_below_one_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected a whole number of 1 to 1000000000 detections per image, found 0"):
        judged(ONE, [], max_detections=0)


def test_detections_inside_a_crowd_region_are_ignored() -> None:
    content = truth({1: [(0, 0, 10), (20, 0, 50)]})
    results = perfect(content)[:1]
    inside = {
        "image_id": 1,
        "category_id": 7,
        "score": 0.99,
        "bbox": [25, 5, 20, 20],
        "segmentation": square(25, 5, 20),
    }
    plain = judged(content, [*results, inside])
    content["annotations"][1]["iscrowd"] = 1
    crowd = judged(content, [*results, inside])
    assert plain.masks is not None
    assert crowd.masks is not None
    assert plain.masks["AP"] is not None
    assert plain.masks["AP"] < 0.5
    assert crowd.masks["AP"] == crowd.boxes["AP"] == pytest.approx(1)
    assert crowd.objects == 1


def test_only_some_images() -> None:
    content = truth({1: [(10, 10, 20)], 2: [(10, 10, 20)], 3: [(0, 0, 9)]})
    results = perfect(content)[:1]
    assert judged(content, results, image_ids=[1]).boxes["AP"] == pytest.approx(1)
    rest = judged(content, results, image_ids=[2, 3])
    assert (rest.boxes["AP"], rest.images, rest.objects, rest.detections) == (0, 2, 2, 0)
    twice = judged(content, perfect(content), image_ids=[1, 2, 2])
    assert (twice.boxes["AP"], twice.images, twice.objects, twice.detections) == (pytest.approx(1), 2, 2, 2)
    with pytest.raises(DataError, match=r"expected image_ids of its images, found 9"):
        judged(content, results, image_ids=[1, 9])


@given(st.permutations([0, -5, 2**40, "a", "7"]), st.permutations([0, "x", 99]))
def test_ids_of_any_kind(image_ids: list[Any], category_ids: list[Any]) -> None:
    content = truth({i: [(10 * i, 10, 8), (10 * i, 30, 8)] for i in range(5)})
    content["categories"] = [{"id": number, "name": "same"} for number in category_ids]
    for image in content["images"]:
        image["id"] = image_ids[image["id"]]
    for i, annotation in enumerate(content["annotations"]):
        annotation["id"] = i  # 0 is an id like any other
        annotation["image_id"] = image_ids[annotation["image_id"]]
        annotation["category_id"] = category_ids[i % 3]
    report = judged(content, perfect(content))
    assert report.masks is not None
    assert report.masks["AP"] == pytest.approx(1)
    assert len(report.per_class) == 3, "classes of one name stay apart"


def test_files_and_contents_give_the_same(tmp_path: Path) -> None:
    data, results = tmp_path / "val.json", tmp_path / "found.json"
    data.write_text(json.dumps(ONE))
    results.write_text(json.dumps(perfect(ONE)))
    from_files, from_contents = evaluate_results(read_dataset(str(data)), results), judged(ONE, perfect(ONE))
    assert from_files == from_contents


def test_results_of_a_program_stay_as_they_are() -> None:
    given = perfect(ONE)
    for entry in given:
        mask = entry["segmentation"]
        entry["segmentation"] = {"size": tuple(mask["size"]), "counts": mask["counts"], "of": "another program"}
    before = copy.deepcopy(given)
    assert judged(ONE, given, matching=0.5, group_by="height") == judged(
        ONE, perfect(ONE), matching=0.5, group_by="height"
    )
    assert given == before


BROKEN_RESULTS: list[tuple[Any, str]] = [
    ({"image_id": 99}, r"entry 1: image_id 99 is not the id of an image"),
    ({"image_id": True}, r"entry 1: image_id True is not the id"),
    ({"image_id": [1]}, r"entry 1: image_id \[1\] is not the id"),
    ({"category_id": 4}, r"entry 1: category_id 4 is not the id of a category in .*, which has 3 other, 7 square"),
    ({"score": "high"}, r"entry 1: expected score as a finite number, found 'high'"),
    ({"score": 10**400}, r"entry 1: expected score as a finite number, found 1000"),
    ({"score": float("inf")}, r"entry 1: expected score as a finite number, found inf"),
    ({"category_id": 2**70}, r"entry 1: category_id 1180591620717411303424 is not the id of a category"),
    ({"category_id": "7"}, r"entry 1: category_id '7' is not the id of a category"),
    ({"image_id": "1"}, r"entry 1: image_id '1' is not the id of an image"),
    ({"bbox": [1, 2, 2**2000, 4]}, r"entry 1: expected bbox"),
    ({"segmentation": {"size": [60, 80], "counts": [2**70]}}, r"entry 1: expected 'counts' as a flat list of integers"),
    ({"segmentation": {"size": [2**40, 2**40], "counts": [1]}}, r"entry 1: expected 'size' of up to"),
    ({"segmentation": {"size": [60, 80], "counts": "\ud800"}}, r"entry 1: run-length string: expected ASCII"),
    ({"score": float("nan")}, r"entry 1: expected score as a finite number, found nan"),
    ({"bbox": [1, 2, 3]}, r"entry 1: expected bbox as x, y, width, height in pixels, found \[1, 2, 3\]"),
    ({"bbox": [1, 2, -3, 4]}, r"entry 1: expected bbox"),
    ({"bbox": [1, 2, float("inf"), 4]}, r"entry 1: expected bbox"),
    ({"bbox": None, "segmentation": None}, r"entry 1: expected bbox, segmentation or keypoints, found none of them"),
    ({"segmentation": [[0, 0, 9, 0, 9, 9]]}, r"entry 1: expected segmentation as run lengths"),
    ({"segmentation": {"size": [60, 80], "counts": "b@!"}}, r"entry 1: run-length string"),
    ({"segmentation": {"size": [60, 80], "counts": [5, 5]}}, r"entry 1: expected runs that sum to 60 \* 80"),
    (
        {"segmentation": {"size": [80, 60], "counts": [4800]}},
        r"entry 1: expected a mask of the image's height, width \(60, 80\), found \(80, 60\)",
    ),
]


@pytest.mark.parametrize(("change", "message"), BROKEN_RESULTS)
def test_broken_results_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    results = perfect(ONE) * 2
    results[1] = {**results[1], **change}
    path = tmp_path / "found.json"
    path.write_text(json.dumps(results))
    with pytest.raises(DataError, match=message) as caught:
        judged(ONE, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["image_id", "category_id", "score"])
def test_results_without_a_key_are_refused(key: str) -> None:
    results = perfect(ONE)
    del results[0][key]
    with pytest.raises(DataError, match=rf"results: entry 0: expected the keys {key} too, found"):
        judged(ONE, results)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file, expected a COCO results JSON"),
        ("", "not JSON"),
        ('[{"image_id": 1', "not JSON .* may be truncated"),
        ("[" * 100_000, "not JSON"),
        ("{}", "expected COCO results, a list of objects .*, found an object"),
        ("3", "found a value of type int"),
        ('"text"', "found a value of type str"),
        ("[3]", "entry 0: expected an object, found 3"),
        (b"\xff\xfe[]\x00", "not JSON"),
    ],
)
def test_unreadable_results_are_refused(text: str | bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=message) as caught:
        judged(ONE, path)
    assert str(path) in str(caught.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        judged(ONE, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [], "expected COCO JSON, an object with lists .* found list"),
        (lambda c: {"a": 1}, r"found a \(int\)"),
        (lambda c: {**c, "annotations": {}}, "expected COCO JSON"),
        (
            lambda c: {**c, "images": [*c["images"], {**c["images"][0], "file_name": "b"}]},
            "ground truth: two images have id 1",
        ),
        (
            lambda c: {**c, "categories": [{"id": 7}]},
            "category 7: expected a name as text, found None",
        ),
        (lambda c: {**c, "categories": [3]}, "expected categories as objects"),
        (lambda c: {**c, "categories": c["categories"] * 2}, "two categories have id 7"),
    ],
)
def test_ground_truth_that_is_not_coco_is_refused(change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        judged(change(ONE), [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "of image 99: no image has this id"),
        ({"category_id": None}, "no category has id None"),
        (
            {"segmentation": {"size": [10, 10], "counts": [100]}},
            r"height, width .*, found \(10, 10\)",
        ),
        ({"segmentation": [[1, 1, 5, 5]]}, "at least 3 points"),
        ({"segmentation": [[1, 1, 5, 5, 9]]}, "at least 3 points, found 5 numbers"),
        ({"segmentation": [[1, 1, 5, 5, float("nan"), 9]]}, "finite"),
        ({"bbox": "wide", "segmentation": []}, "expected bbox"),
        ({"bbox": [3, 3, 0, 5], "segmentation": []}, "has no area"),
    ],
)
def test_broken_annotations_are_left_out_and_named(change: dict[str, Any], message: str) -> None:
    content = truth({1: [(10, 10, 20)], 2: [(30, 5, 9)]})
    results = perfect(content)
    content["annotations"][1].update(change)
    report = judged(content, results[:1])
    assert report.boxes["AP"] == pytest.approx(1)
    assert report.objects == 1
    assert len(report.skipped) == 1
    assert re.search(rf"ground truth: annotation 2 .*{message}", report.skipped[0])


def test_objects_that_share_an_annotation_id_all_count() -> None:
    content = truth({1: [(10, 10, 20), (40, 5, 9)]})
    results = perfect(content)
    content["annotations"][1]["id"] = content["annotations"][0]["id"]
    report = judged(content, results)
    assert (report.objects, report.boxes["AP"]) == (2, pytest.approx(1))


def test_images_without_a_size_are_left_out_and_named() -> None:
    content = truth({1: [(10, 10, 20)], 2: [(10, 10, 20)], 3: []})
    results = perfect(content)[:1]
    del content["images"][1]["width"]
    report = judged(content, results)
    assert (report.images, report.objects, report.boxes["AP"]) == (2, 1, pytest.approx(1))
    assert "image 2: expected a positive integer height and width" in report.skipped[0]
    assert "annotation 2 of image 2: its image is left out" in report.skipped[1]


def test_annotations_without_masks_count_for_boxes_only() -> None:
    content = truth({1: [(10, 10, 20)], 2: [(30, 5, 9)]})
    results = perfect(content)
    content["annotations"][1]["segmentation"] = []
    report = judged(content, results[:1])
    assert report.masks is not None
    assert report.masks["AR100"] == pytest.approx(1)
    assert report.boxes["AR100"] == pytest.approx(0.5)
    assert "no segmentation, compared by box only" in report.skipped[0]
    del content["annotations"][0]["segmentation"]
    assert judged(content, results).masks is None


def test_groups_are_judged_like_data_sets_of_their_own() -> None:
    content = truth({1: [(10, 10, 20)], 2: [(30, 5, 9)], 3: [(5, 5, 12)]})
    for image, light in zip(content["images"], ("day", "night", "day"), strict=True):
        image["light"] = light
    results = perfect(content)[:2]
    report = judged(content, results, group_by="light")
    assert list(report.groups) == ["day", "night"]
    assert [report.groups[name].objects for name in ("day", "night")] == [2, 1]
    for name, ids in (("day", [1, 3]), ("night", [2])):
        alone = judged(content, results, image_ids=ids)
        assert alone.notes == ("1 results of other images of the data set are not counted",)
        assert report.groups[name] == replace(alone, notes=())
    assert report.to_dict()["groups"]["night"]["boxes"]["AP"] == pytest.approx(1)
    assert "AP of group" in str(table(report))
    with pytest.raises(DataError, match=r"image 1 has no field 'weather' to group by, found .*light"):
        judged(content, results, group_by="weather")


def test_some_results_without_masks_are_refused() -> None:
    content = truth({1: [(10, 10, 20), (40, 10, 9)], 2: [(30, 5, 9)]})
    results = perfect(content)
    for missing in (None, "left out"):
        results[1]["segmentation"] = None
        if missing:
            del results[1]["segmentation"]
        with pytest.raises(
            DataError, match=r"entry 1: expected a segmentation, as 2 other results have, found none in 1"
        ):
            judged(content, results)


def test_notes_say_which_figures_are_missing() -> None:
    boxes_only = [{key: value for key, value in entry.items() if key != "segmentation"} for entry in perfect(ONE)]
    assert judged(ONE, boxes_only).notes == ("masks were not compared: the results have no segmentation",)
    content = truth({1: [(10, 10, 20)]})
    del content["annotations"][0]["segmentation"]
    assert judged(content, perfect(ONE)).notes == ("masks were not compared: no annotation has segmentation",)
    content = truth({1: [(10, 10, 20), (40, 10, 9)]})
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["segmentation"] = []
    report = judged(content, perfect(ONE))
    assert report.notes == ("the AP of masks is undefined: no object with segmentation counts",)
    assert report.score == report.boxes["AP"]
    assert report.notes[0] in str(table(report))


def test_notes_say_what_does_not_count() -> None:
    content = truth({1: [(10, 10, 20), (40, 10, 9), (60, 10, 9)], 2: []})
    content["annotations"][0]["area"] = -400
    results = perfect(content, score=7.5)
    area, many, scores = judged(content, results, max_detections=2).notes
    assert area.startswith("1 of 3 objects have an area below 0 or above 10^10 square pixels")
    assert many.startswith("1 images hold more objects than the 2 detections that count in each, up to 3")
    assert scores.startswith("3 of 3 results have a score below 0 or above 1")
    assert judged(ONE, perfect(ONE)).notes == ()


def test_kinds_of_figures_do_not_depend_on_the_group() -> None:
    content = truth({1: [(10, 10, 20)], 2: [(30, 5, 9)]})
    for image, light in zip(content["images"], ("day", "night"), strict=True):
        image["light"] = light
    results = [{key: value for key, value in entry.items() if key != "segmentation"} for entry in perfect(content)[:1]]
    groups = judged(content, results, group_by="light").groups
    assert groups["night"].masks is None, "no result lies there, and those of the day have no masks"
    assert groups["night"].boxes["AP"] == 0


@pytest.mark.parametrize(("name", "shown"), [("", ""), ("\ud800", "?"), ("two\nlines", "two\nlines")])
def test_names_of_categories_may_be_any_text(name: str, shown: str) -> None:
    content = truth({1: [(10, 10, 20)]})
    content["categories"][0]["name"] = name
    assert judged(content, perfect(content)).per_class[shown]["boxes"] == pytest.approx(1)

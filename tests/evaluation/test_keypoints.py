"""Keypoint figures: similarity from its definition, what is ignored, and which results cannot be compared."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.errors import DataError
from maskrcnn.evaluation.coco import Report, evaluate_results
from maskrcnn.evaluation.oks import COCO_SIGMAS, DEFAULT_SIGMA
from maskrcnn.evaluation.report import table

FIGURES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
NAMES = tuple(COCO_SIGMAS)
# As the COCO API has them, in tenths of its constants: https://cocodataset.org/#keypoints-eval
SIGMAS = np.array(
    [0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89]
)
SIGMAS = SIGMAS / 10
PERSON = {"id": 1, "name": "person", "keypoints": list(NAMES)}
AREA = 5000.0  # medium


def judged(content: Any, results: Any, **options: Any) -> Report:
    """The figures of results against the content of a COCO JSON."""
    return evaluate_results(coco.from_content(content, Path("ground truth")), results, **options)


def annotation(
    number: int, points: np.ndarray, *, area: float = AREA, box: Sequence[float] = (50, 50, 60, 120), **more: Any
) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": 1,
        "category_id": 1,
        "bbox": list(box),
        "area": area,
        "iscrowd": 0,
        "keypoints": points.reshape(-1).tolist(),
        "num_keypoints": int((points[:, 2] > 0).sum()),
        **more,
    }


def truth(*annotations: dict[str, Any], categories: Sequence[dict[str, Any]] = (PERSON,)) -> dict[str, Any]:
    images = [{"id": i, "height": 400, "width": 400, "file_name": f"{i}.png"} for i in (1, 2)]
    return {"images": images, "annotations": list(annotations), "categories": list(categories)}


def result(points: np.ndarray, score: float = 0.9, **more: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "score": score, "keypoints": points.reshape(-1).tolist(), **more}


def person(seed: int = 0, visible: Sequence[int] = range(17)) -> np.ndarray:
    points = np.zeros((17, 3))
    points[:, :2] = np.random.default_rng(seed).integers(50, 110, (17, 2))
    points[list(visible), 2] = 2
    return points * (points[:, 2:] > 0)


def moved(points: np.ndarray, place: int, similarity: float, area: float = AREA) -> np.ndarray:
    """One keypoint moved so far that its own similarity exp(-d^2 / (2 A (2 sigma)^2)) is `similarity`."""
    result = points.copy()
    result[place, 0] += math.sqrt(-2 * area * math.log(similarity)) * 2 * SIGMAS[place]
    return result


def keypoints(content: dict[str, Any], results: list[dict[str, Any]], **options: Any) -> dict[str, float | None]:
    figures = judged(content, results, **options).keypoints
    assert figures is not None
    assert tuple(figures) == FIGURES
    return figures


def test_sigmas_are_those_of_coco() -> None:
    np.testing.assert_allclose(list(COCO_SIGMAS.values()), SIGMAS)
    assert pytest.approx(SIGMAS.mean(), abs=5e-4) == DEFAULT_SIGMA


def test_a_person_found_exactly() -> None:
    report = judged(truth(annotation(1, person())), [result(person())])
    assert report.keypoints == {name: None if name in ("APl", "ARl") else pytest.approx(1) for name in FIGURES}
    assert report.masks is None
    assert report.boxes is None, "results of keypoints alone have no boxes to compare"
    assert report.score == pytest.approx(1)
    assert report.per_class == {"person": {"masks": None, "boxes": None, "keypoints": pytest.approx(1)}}
    assert report.oks_sigmas["person"] == pytest.approx(SIGMAS.tolist())
    assert json.loads(report.to_json())["keypoints"]["APl"] is None
    assert report.line() == "keypoint AP 1.000  AP50 1.000  AP75 1.000"


@pytest.mark.parametrize("place", [0, 5, 11, 16])
@pytest.mark.parametrize("area", [AREA, 20_000.0])
def test_one_keypoint_at_a_known_similarity(place: int, area: float) -> None:
    points = person(visible=[place])
    found = moved(points, place, 0.72, area)
    figures = keypoints(truth(annotation(1, points, area=area)), [result(found)])
    # 0.72 passes the thresholds 0.50, 0.55, 0.60, 0.65 and 0.70 of ten.
    assert (figures["AP"], figures["AR"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert (figures["AP50"], figures["AR50"]) == (pytest.approx(1), pytest.approx(1))
    assert (figures["AP75"], figures["AR75"]) == (0, 0)
    medium = area < 96**2
    assert (figures["APm"], figures["APl"]) == ((pytest.approx(0.5), None) if medium else (None, pytest.approx(0.5)))
    assert (figures["ARm"], figures["ARl"]) == ((pytest.approx(0.5), None) if medium else (None, pytest.approx(0.5)))


def test_similarity_is_the_mean_over_labelled_keypoints_hidden_ones_too() -> None:
    points = person(visible=[0, 5, 16])
    points[5, 2] = 1
    # (0.9 + 0.6 + 0.36) / 3 = 0.62: three thresholds of ten.
    found = moved(moved(moved(points, 0, 0.9), 5, 0.6), 16, 0.36)
    assert keypoints(truth(annotation(1, points)), [result(found)])["AP"] == pytest.approx(0.3)
    far = found.copy()
    far[[2, 9], :2] = 390
    assert keypoints(truth(annotation(1, points)), [result(far)])["AP"] == pytest.approx(0.3), "not labelled"


def test_an_object_without_labelled_keypoints_and_a_crowd_are_ignored() -> None:
    one, other = person(0), person(1)
    other[:, 0] += 200
    nothing = np.zeros((17, 3))
    box = [240, 40, 80, 80]
    results = [result(one, 0.5), result(other, 0.9)]
    plain = keypoints(truth(annotation(1, one)), results)
    assert plain["AP"] == pytest.approx(0.5), "the wrong one comes first"
    for more in ({}, {"iscrowd": 1}):
        content = truth(annotation(1, one), annotation(2, nothing, box=box, **more))
        assert keypoints(content, results)["AP"] == pytest.approx(1), more
    labelled_crowd = truth(annotation(1, one), annotation(2, other, box=box, iscrowd=1))
    assert keypoints(labelled_crowd, results)["AP"] == pytest.approx(1)
    for change in ({"num_keypoints": 0}, {"keypoints": None}, {"keypoints": []}):
        content = truth(annotation(1, one), {**annotation(2, other, box=box), **change})
        figures = keypoints(content, results[:1])
        assert figures["AR"] == pytest.approx(1), "there is nothing else to find"


def test_nothing_to_find_is_undefined_and_nothing_found_is_zero() -> None:
    assert set(keypoints(truth(annotation(1, np.zeros((17, 3)))), [result(person())]).values()) == {None}
    figures = keypoints(truth(annotation(1, person())), [])
    assert (figures["AP"], figures["AR"]) == (0, 0)


def test_the_best_20_of_an_image_count() -> None:
    people = [person(i) + np.array([200 * (i % 2), 0, 0]) for i in range(25)]
    content = truth(*(annotation(i, points) for i, points in enumerate(people)))
    results = [result(points, 0.9 - i / 100) for i, points in enumerate(people)]
    assert keypoints(content, results)["AR"] == pytest.approx(20 / 25)
    assert keypoints(content, results, max_detections=5)["AR"] == pytest.approx(5 / 25)


def test_boxes_beside_keypoints_are_compared_and_change_nothing() -> None:
    points = person()
    content = truth(annotation(1, points))
    found = moved(points, 11, 0.01)
    boxed = judged(content, [result(found, bbox=[50, 50, 60, 120])])
    assert boxed.boxes is not None
    assert boxed.boxes["AP"] == pytest.approx(1)
    assert boxed.keypoints == keypoints(content, [result(found)])
    assert boxed.score == boxed.keypoints["AP"]
    without = [{**result(found), "image_id": 2, "bbox": [0, 0, 9, 9], "keypoints": []}]
    with pytest.raises(DataError, match=r"entry 1: expected keypoints, as 1 other results have, found none in 1 of 2"):
        judged(content, [result(found, bbox=[50, 50, 60, 120]), *without])


DOG = {"id": 2, "name": "dog", "keypoints": ["head", "tail"]}
BALL = {"id": 3, "name": "ball"}


def two_classes(**dog: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    tail = np.array([[100.0, 100, 2], [150, 100, 2]])
    content = truth(
        annotation(1, person()),
        annotation(2, tail, category_id=2),
        {**annotation(3, tail, category_id=3), "keypoints": []},
        categories=[PERSON, {**DOG, **dog}, BALL],
    )
    found = tail.copy()
    found[:, 0] += math.sqrt(-2 * AREA * math.log(0.72)) * 2 * DEFAULT_SIGMA
    box = {"bbox": [50, 50, 60, 120]}
    ball = {"image_id": 1, "category_id": 3, "score": 0.4, **box}
    return content, [result(person(), **box), {**result(found, **box), "category_id": 2}, ball]


def test_classes_have_their_own_keypoints_and_spreads() -> None:
    content, results = two_classes()
    report = judged(content, results)
    assert {name: aps["keypoints"] for name, aps in report.per_class.items()} == {
        "person": pytest.approx(1),
        "dog": pytest.approx(0.5),
        "ball": None,
    }
    assert report.keypoints is not None
    assert report.keypoints["AP"] == pytest.approx(0.75)
    assert report.keypoints["AP75"] == pytest.approx(0.5)
    assert report.oks_sigmas["dog"] == (DEFAULT_SIGMA, DEFAULT_SIGMA)
    assert set(report.oks_sigmas) == {"person", "dog"}
    text = str(table(report))
    assert "OKS of dog: assumed a standard deviation of 0.067 for each keypoint" in text
    assert "OKS of person" not in text
    assert max(map(len, text.splitlines())) <= 80

    content, results = two_classes(sigmas=[DEFAULT_SIGMA / 100] * 2)
    report = judged(content, results)
    assert report.per_class["dog"]["keypoints"] == 0
    assert report.per_class["person"]["keypoints"] == pytest.approx(1)
    assert "OKS of dog" not in str(table(report))


@pytest.mark.parametrize("sigmas", [[0.1], [0.1, 0], [0.1, "a"], 0.1, [0.1, 26]])
def test_spreads_that_cannot_be_used(sigmas: Any) -> None:
    content, results = two_classes(sigmas=sigmas)
    with pytest.raises(DataError, match=r"ground truth: category dog: expected sigmas as 2 numbers between 0 and 1"):
        judged(content, results)


def test_people_of_other_names_are_not_judged_as_coco_people() -> None:
    content = truth(annotation(1, person()), categories=[{**PERSON, "keypoints": [f"point {i}" for i in range(17)]}])
    assert judged(content, [result(person())]).oks_sigmas["person"] == (DEFAULT_SIGMA,) * 17


def test_annotations_without_keypoints_cannot_judge_results_with_them() -> None:
    content = truth(annotation(1, person()), categories=[{"id": 1, "name": "person"}])
    with pytest.raises(
        DataError, match=r"entry 1: expected no keypoints, because the category person of ground truth names none"
    ):
        judged(content, [result(person(), bbox=[1, 1, 9, 9], keypoints=None), result(person())])
    assert judged(content, [result(person(), bbox=[1, 1, 9, 9], keypoints=[])]).keypoints is None


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            [1, 2, 0.5] * 16,
            r"entry 0: expected keypoints as 51 numbers, .* category's 17, found 48 values",
        ),
        ("all", r"entry 0: expected keypoints as 51 numbers.*'all'"),
        ([float("nan"), 2, 0.5] * 17, r"entry 0: expected keypoints as finite numbers"),
        ([None, 2, 0.5] * 17, r"entry 0: expected keypoints as finite numbers"),
    ],
)
def test_broken_results_are_refused(points: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        judged(truth(annotation(1, person())), [{**result(person()), "keypoints": points}])


def test_broken_annotations_are_left_out_and_named() -> None:
    content = truth(annotation(1, person()), {**annotation(2, person(1)), "keypoints": [1, 2, 2]})
    report = judged(content, [result(person())])
    assert report.keypoints is not None
    assert report.keypoints["AR"] == pytest.approx(1)
    assert "annotation 2 of image 1: expected keypoints as 51 numbers" in report.skipped[0]
    content = truth(annotation(1, person()), categories=[{**PERSON, "keypoints": "nose"}])
    with pytest.raises(DataError, match="ground truth: category person: expected keypoints as a list of names"):
        judged(content, [])


def test_groups_and_some_images() -> None:
    content = truth(annotation(1, person()), annotation(2, person(1), image_id=2))
    for image, light in zip(content["images"], ("day", "night"), strict=True):
        image["light"] = light
    report = judged(content, [result(person())], group_by="light")
    aps = {name: group.keypoints["AP"] for name, group in report.groups.items() if group.keypoints is not None}
    assert aps == {"day": pytest.approx(1), "night": 0}
    assert "AP of group  keypoints" in str(table(report))
    assert keypoints(content, [result(person())], image_ids=[1])["AR"] == pytest.approx(1)


def test_table_has_a_block_of_its_own_for_keypoints() -> None:
    content = truth(annotation(1, person()))
    lines = str(table(judged(content, [result(person(), bbox=[50, 50, 60, 120])]))).splitlines()
    assert lines[0].split()[-1] == "ARl"
    assert lines[1].startswith("boxes")
    assert tuple(lines[3].split()) == FIGURES
    assert lines[4].split()[:2] == ["keypoints", "1.000"]
    alone = str(table(judged(content, [result(person())]))).splitlines()
    assert tuple(alone[0].split()) == FIGURES


def similarity(found: np.ndarray, entry: dict[str, Any]) -> float:
    """OKS as computeOks of the COCO API has it: without labelled keypoints, the distance from twice the box."""
    given = np.reshape(entry["keypoints"], (17, 3))
    labelled = given[:, 2] > 0
    if labelled.any():
        distance = ((found[:, :2] - given[:, :2]) ** 2).sum(axis=1)[labelled]
        spread = SIGMAS[labelled]
    else:
        x, y, w, h = entry["bbox"]
        low, high = np.array([x - w, y - h]), np.array([x + 2 * w, y + 2 * h])
        distance = (np.maximum(0, np.maximum(low - found[:, :2], found[:, :2] - high)) ** 2).sum(axis=1)
        spread = SIGMAS
    return float(np.exp(-distance / (2 * entry["area"] * (2 * spread) ** 2)).mean())


def average_precision(content: dict[str, Any], results: list[dict[str, Any]], areas: tuple[float, float]) -> float:
    """AP as the COCO API defines it, one class, at most 20 detections an image."""
    aps = []
    for threshold in np.linspace(0.5, 0.95, 10):
        outcomes: list[tuple[float, bool]] = []
        total = 0
        for image in content["images"]:
            entries = [e for e in content["annotations"] if e["image_id"] == image["id"]]
            ignored = {
                e["id"]: bool(e["iscrowd"]) or e["num_keypoints"] == 0 or not areas[0] <= e["area"] <= areas[1]
                for e in entries
            }
            entries.sort(key=lambda e: ignored[e["id"]])
            total += sum(not value for value in ignored.values())
            own = sorted((r for r in results if r["image_id"] == image["id"]), key=lambda r: -r["score"])[:20]
            taken: set[int] = set()
            for one in own:
                points = np.reshape(one["keypoints"], (17, 3))
                best, match = threshold, None
                for entry in entries:
                    if entry["id"] in taken and not entry["iscrowd"]:
                        continue
                    if match is not None and not ignored[match] and ignored[entry["id"]]:
                        break
                    if (value := similarity(points, entry)) >= best:
                        best, match = value, entry["id"]
                if match is not None:
                    taken.add(match)
                    if not ignored[match]:
                        outcomes.append((one["score"], True))
                else:
                    spanned = np.ptp(points[:, :2], axis=0).prod()
                    if areas[0] <= spanned <= areas[1]:
                        outcomes.append((one["score"], False))
        hits = np.array([hit for _, hit in sorted(outcomes, key=lambda o: -o[0])], dtype=float)
        found = np.cumsum(hits)
        precision = np.maximum.accumulate((found / np.arange(1, len(hits) + 1))[::-1])[::-1]
        places = np.searchsorted(found / total, np.linspace(0, 1, 101))
        aps.append(np.mean([precision[p] if p < len(precision) else 0 for p in places]))
    return float(np.mean(aps))


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image_id in (1, 2):
        for _ in range(12):
            side = rng.uniform(40, 180)
            corner = rng.uniform(0, 220, 2)
            points = np.concatenate([corner + rng.uniform(0, side, (17, 2)), np.full((17, 1), 2)], axis=1)
            points[rng.random(17) < rng.choice([0, 0.3, 1.0], p=[0.4, 0.4, 0.2])] = 0
            crowd = int(rng.random() < 0.1)
            box = [*corner, side, side]
            annotations.append(
                annotation(len(annotations) + 1, points, area=side**2 * 0.6, box=box, image_id=image_id, iscrowd=crowd)
            )
            for _ in range(2):  # 24 an image, of which 20 count
                noise = rng.normal(0, side * rng.choice([0.01, 0.05, 0.2]), (17, 2))
                found = np.where(points[:, 2:] > 0, points, corner[0])[:, :2] + noise
                found = np.concatenate([found, np.ones((17, 1))], axis=1)
                results.append(result(found, float(rng.random()), image_id=image_id))
    content = truth(*annotations)
    figures = keypoints(copy.deepcopy(content), results)
    for name, areas in (("AP", (0.0, 1e10)), ("APm", (32.0**2, 96.0**2)), ("APl", (96.0**2, 1e10))):
        expected = average_precision(content, results, areas)
        assert 0.05 < expected < 0.95
        assert figures[name] == pytest.approx(expected, abs=1e-9), name

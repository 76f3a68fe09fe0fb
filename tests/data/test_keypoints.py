"""Keypoints from the file to the batch: the continuous frame, mirroring, crops, and what bad input is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.config import AugmentConfig, Category, ImageConfig
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.loader import collate, training_batches
from maskrcnn.data.loading.transforms import training_sample
from maskrcnn.data.loading.visible import visible_keypoints
from maskrcnn.errors import DataError
from maskrcnn.structures.frame import frame_of_size, transform_points
from maskrcnn.structures.tensors import to_device
from small_data import small_coco, small_config, write_small
from small_network import sample_of
from small_people import KEYPOINTS, PERSON, SPOTS, people_coco, write_people

PLAIN = AugmentConfig(flip_horizontal=0.0)
SAME_SIZE = ImageConfig(short_side=64, long_side=96)


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return path


def test_keypoints_are_the_centres_of_their_pixels(tmp_path: Path) -> None:
    content, _ = people_coco(3)
    dataset = read_dataset(write(tmp_path, content))
    assert dataset.problems == ()
    assert dataset.categories == (Category(4, "person", KEYPOINTS, ((0, 1), (0, 2), (0, 3), (0, 4))),)
    for i in range(3):
        points = dataset.annotations(i).keypoints
        assert points is not None
        assert (points.shape, points.dtype) == ((2, 5, 3), np.float64)
        for found, annotation in zip(points, content["annotations"][2 * i : 2 * i + 2], strict=True):
            for (x, y, v), (px, py, given_v) in zip(found, np.reshape(annotation["keypoints"], (5, 3)), strict=True):
                assert (x, y, v) == ((px + 0.5, py + 0.5, given_v) if given_v else (0, 0, 0))
    subset, whole = dataset.subset([2]).annotations(0).keypoints, dataset.annotations(2).keypoints
    assert subset is not None
    assert whole is not None
    np.testing.assert_array_equal(subset, whole)
    drawn = dataset.instances(1)
    assert drawn.keypoints is not None
    assert drawn.keypoints.dtype == np.float32
    np.testing.assert_array_equal(drawn.keypoints, dataset.annotations(1).keypoints)
    assert drawn.categories == dataset.categories


def test_what_is_not_labelled_is_zero(tmp_path: Path) -> None:
    content, _ = people_coco(3)
    content["annotations"][0]["num_keypoints"] = 0
    del content["annotations"][1]["keypoints"]
    content["annotations"][2]["keypoints"] = []
    content["annotations"][3]["keypoints"][:3] = [9, 9, 0]
    del content["annotations"][4]["num_keypoints"]
    dataset = read_dataset(write(tmp_path, content))
    assert dataset.problems == ()
    points = np.concatenate([dataset.annotations(i).keypoints for i in range(3)])  # type: ignore[arg-type, misc]
    assert not points[:3].any()
    assert not points[3, 0].any()
    assert (points[4, :, 2] > 0).all()


def test_categories_with_and_without_keypoints(tmp_path: Path) -> None:
    content, _ = people_coco(1)
    content["categories"].append({"id": 2, "name": "ball", "keypoints": []})
    content["annotations"].append({"id": 9, "image_id": 0, "category_id": 2, "bbox": [1, 1, 9, 9], "keypoints": [1]})
    points = read_dataset(write(tmp_path, content)).annotations(0).keypoints
    assert points is not None
    assert points.any(axis=(1, 2)).tolist() == [True, True, False]
    plain, _ = small_coco(1)
    assert read_dataset(write(tmp_path, plain)).annotations(0).keypoints is None


def change(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["annotations"][0].update(fields)


FULL = [5, 5, 2] * 5
BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a number too few": (
        change(keypoints=FULL[:-1]),
        r"annotation 1 of image 0: expected keypoints as 15 numbers, .* category's 5, found 14 values",
    ),
    "one keypoint too many": (change(keypoints=[*FULL, 1, 1, 1]), r"annotation 1 of image 0: .* found 18 values"),
    "no list": (change(keypoints="nose"), r"annotation 1 of image 0: expected keypoints as 15 numbers.*'nose'"),
    "no numbers": (change(keypoints=["a", 1, 2] * 5), r"annotation 1 of image 0: .* finite numbers"),
    "not finite": (change(keypoints=[float("nan"), 1, 2] * 5), r"annotation 1 of image 0: .* finite numbers"),
    "beyond every image": (change(keypoints=[10**400, 1, 2] * 5), r"annotation 1 of image 0: .* finite numbers"),
    "an unknown visibility": (change(keypoints=[5, 5, 3] * 5), r"annotation 1 of image 0: .* visibility .*3\.0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_keypoints_are_skipped_and_named_or_refused(tmp_path: Path, name: str) -> None:
    content, _ = people_coco(1)
    breaks, words = BROKEN[name]
    breaks(content)
    path = write(tmp_path, content)
    dataset = read_dataset(path)
    assert [record.count for record in dataset.records] == [1]
    assert len(dataset.problems) == 1
    with pytest.raises(DataError, match=words) as caught:
        read_dataset(path, strict=True)
    assert [str(caught.value)] == list(dataset.problems)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"keypoints": "nose"}, "category person: expected keypoints as a list of names, found 'nose'"),
        ({"keypoints": ["nose", 3]}, "category person: expected keypoints as a list of names"),
        (
            {"keypoints": ["nose", "nose"], "skeleton": []},
            "category person: expected keypoints with different names",
        ),
        ({"sigmas": 3}, "category person: expected sigmas as 5 numbers"),
    ],
)
def test_categories_that_cannot_be_used(tmp_path: Path, entry: dict[str, Any], words: str) -> None:
    content, _ = people_coco(1)
    content["categories"] = [{**PERSON, **entry}]
    with pytest.raises(DataError, match=words) as caught:
        read_dataset(write(tmp_path, content))
    assert "train.json" in str(caught.value)


@pytest.mark.parametrize("skeleton", [[[0, 1]], [[1, 6]], [[1, 2, 3]], 3])
def test_limbs_that_cannot_be_drawn_are_left_out_and_named_or_refused(tmp_path: Path, skeleton: Any) -> None:
    content, _ = people_coco(1)
    content["categories"] = [{**PERSON, "skeleton": skeleton}]
    path = write(tmp_path, content)
    dataset = read_dataset(path)
    assert dataset.categories == (Category(4, "person", KEYPOINTS),)
    (problem,) = dataset.problems
    assert f"{path}: category person: expected skeleton as pairs of keypoints numbered 1..5, found" in problem
    with pytest.raises(DataError) as caught:
        read_dataset(path, strict=True)
    assert str(caught.value) == problem
    content["categories"][0]["keypoints"] = []
    assert read_dataset(write(tmp_path, content)).problems == (), "without keypoints there is nothing to draw"


def test_categories_of_different_numbers(tmp_path: Path) -> None:
    content, _ = people_coco(1)
    content["categories"].append({"id": 9, "name": "dog", "keypoints": ["tail"]})
    content["annotations"].append(
        {"id": 9, "image_id": 0, "category_id": 9, "bbox": [1, 1, 9, 9], "keypoints": [3, 4, 2]}
    )
    points = read_dataset(write(tmp_path, content)).annotations(0).keypoints
    assert points is not None
    assert points.shape == (3, 5, 3)
    assert points[2].tolist() == [[3.5, 4.5, 2], *[[0, 0, 0]] * 4]


@given(st.data(), st.integers(0, 2**32 - 1))
def test_points_follow_the_matrix_and_sides_change_when_it_mirrors(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.uniform(0, 60, (3, 5, 2)), rng.integers(0, 3, (3, 5, 1))], axis=2).astype(np.float32)
    points *= points[..., 2:] > 0
    out_hw = (int(rng.integers(20, 120)), int(rng.integers(20, 120)))
    frame = frame_of_size((60, 60), (60, 60), tuple(rng.uniform(0.3, 3, 2)))
    frame = frame.cropped(*rng.uniform(-20, 40, 2), out_hw)
    mirrors = 0
    for step in data.draw(st.lists(st.sampled_from(["horizontal", "vertical", "turn"]), max_size=4)):
        frame = {
            "turn": frame.turned,
            "horizontal": frame.flipped_horizontally,
            "vertical": frame.flipped_vertically,
        }[step]()
        mirrors += step != "turn"
    names = (KEYPOINTS, (), KEYPOINTS)
    found = visible_keypoints(points, names, frame)
    assert found.dtype == np.float32
    partner = [0, 2, 1, 4, 3]
    for i in range(3):
        for k in range(5):
            x, y, v = points[i, k].astype(np.float64)
            there = frame.matrix @ (x, y, 1)
            place = partner[k] if mirrors % 2 and names[i] else k
            if v and 0 <= there[0] <= frame.input_hw[1] and 0 <= there[1] <= frame.input_hw[0]:
                np.testing.assert_allclose(found[i, place], [*there[:2], v], rtol=1e-6, atol=1e-4)
            else:
                assert not found[i, place].any()


def test_keypoints_lie_on_their_spots_after_any_augmentation(tmp_path: Path) -> None:
    dataset = read_dataset(write_people(tmp_path, "train", 6))
    augment = AugmentConfig(scale_jitter=(0.8, 2.0), crop=(64, 64), flip_vertical=0.5, quarter_turns=True)
    config = replace(small_config(), image=SAME_SIZE, augment=augment)
    mirrored_spots = SPOTS[[0, 2, 1, 4, 3]].astype(int)
    seen = {True: 0, False: 0}
    gone = 0
    for seed in range(80):
        sample = training_sample(dataset, seed % 6, config, np.random.default_rng(seed))
        assert sample.keypoints is not None
        assert sample.keypoints.shape == (len(sample.boxes), 5, 3)
        mirrored = bool(np.linalg.det(sample.frame.matrix) < 0)
        spots = mirrored_spots if mirrored else SPOTS.astype(int)
        gone += int((sample.keypoints[..., 2] == 0).sum())
        given = dataset.annotations(seed % 6).keypoints
        assert given is not None
        there = transform_points(given[..., :2].astype(np.float64), sample.frame.matrix)
        inside = ((there >= 0) & (there <= sample.image.shape[:0:-1])).all(axis=-1) & (given[..., 2] > 0)
        assert (sample.keypoints[..., 2] > 0).sum() == inside.sum(), "no object that is seen loses its keypoints"
        for person in sample.keypoints:
            for (x, y, v), colour in zip(person, spots, strict=True):
                # Closer to the border than a spot's half width, resampling mixes it with the ground.
                if v and 2 <= x <= sample.image.shape[2] - 2 and 2 <= y <= sample.image.shape[1] - 2:
                    pixel = sample.image[:, int(y), int(x)].numpy().astype(int)
                    assert np.abs(pixel - colour).max() <= 2, (seed, x, y)
                    seen[mirrored] += 1
    assert min(seen.values()) > 80
    assert gone > 80


def test_batches_carry_keypoints_of_every_slot(tmp_path: Path) -> None:
    path = write_people(tmp_path, "train", 2)
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    dataset = read_dataset(path)
    config = replace(small_config(batch_size=2), augment=PLAIN, image=SAME_SIZE)
    for workers in (0, 1):
        batch = next(training_batches(dataset, replace(config, train=replace(config.train, workers=workers))))
        keypoints = batch.targets.keypoints
        assert keypoints is not None
        assert (keypoints.shape, keypoints.dtype) == ((2, 2, 5, 3), torch.float32)
        for row, image_id in zip(keypoints, batch.image_ids, strict=True):
            expected = dataset.annotations(int(image_id)).keypoints
            assert expected is not None
            np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-5)
            assert not row[len(expected) :].any()
    moved = to_device(batch.targets, "meta")
    assert moved.keypoints is not None
    assert moved.masks is not None
    assert {t.device.type for t in (moved.boxes, moved.valid, moved.keypoints, moved.masks.pixels)} == {"meta"}


def test_images_without_people_and_data_without_keypoints(tmp_path: Path) -> None:
    content, _ = people_coco(1)
    path = write_people(tmp_path / "empty", "train", 1)
    path.write_text(json.dumps({**content, "annotations": []}))
    batch = next(training_batches(read_dataset(path), small_config(batch_size=1)))
    assert batch.targets.keypoints is not None
    assert batch.targets.keypoints.shape == (1, 1, 5, 3)
    plain = read_dataset(write_small(tmp_path / "plain", "train", 2))
    for batch in islice(training_batches(plain, small_config()), 2):
        assert batch.targets.keypoints is None
        assert to_device(batch.targets, "cpu").keypoints is None
    assert collate([sample_of(32, 32, [(0, (2, 2, 9, 9))])], ImageConfig()).targets.keypoints is None


def test_real_people(shared: Path) -> None:
    path = shared / "data" / "person" / "val.json"
    by_id = {annotation["id"]: annotation for annotation in json.loads(path.read_text())["annotations"]}
    dataset = read_dataset(path)
    assert len(dataset.categories[0].keypoints) == 17
    assert dataset.categories[0].skeleton[0] == (15, 13)
    for i, record in enumerate(dataset.records):
        annotations = dataset.annotations(i)
        points = annotations.keypoints
        assert points is not None
        assert (points[..., :2] <= [record.width, record.height]).all()
        for found, number in zip(points, annotations.ids, strict=True):
            assert int((found[:, 2] > 0).sum()) == by_id[number]["num_keypoints"]

"""The generated data set: ordinary files whose annotations say what is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskrcnn.config.presets import preset
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.transforms import training_sample
from maskrcnn.data.shapes import CLASSES, KEYPOINTS, draw_shapes, write_shapes
from maskrcnn.errors import DataError
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.structures.masks import RLE

Drawn = tuple[np.ndarray, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    return [draw_shapes(160, np.random.default_rng(i)) for i in range(150)]


@pytest.fixture(scope="module")
def pointed() -> list[list[dict[str, Any]]]:
    """The annotations of the first images of `drawn`, with keypoints."""
    return [draw_shapes(160, np.random.default_rng(i), keypoints=True)[1] for i in range(80)]


def points_of(annotation: dict[str, Any]) -> np.ndarray:
    """(4, 3) x, y and visibility, in the continuous frame; top, right, bottom, left."""
    points = np.reshape(annotation["keypoints"], (4, 3)).astype(float)
    points[:, :2] += 0.5 * (points[:, 2:] > 0)
    return points


def mask_of(annotation: dict[str, Any], size: int = 160) -> RLE:
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        return RLE.from_coco(segmentation)
    parts = [np.array(part).reshape(-1, 2) for part in segmentation]
    return RLE((size, size), polygons_to_rle(parts, (size, size)))


def test_files_are_a_data_set_without_problems(tmp_path: Path) -> None:
    path = write_shapes(tmp_path, "val", 12, size=96)
    assert path == tmp_path / "val.json"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["val", "val.json"]
    dataset = read_dataset(path, strict=True)
    assert len(dataset) == 12
    assert tuple(category.name for category in dataset.categories) == CLASSES
    for i in range(12):
        assert dataset.read(i).shape == (96, 96, 3)
        found = dataset.instances(i)
        assert found.masks is not None
        np.testing.assert_array_equal(found.masks.boxes(), found.boxes)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first = write_shapes(tmp_path / "a", "train", 3, seed=7)
    second = write_shapes(tmp_path / "b", "train", 3, seed=7)
    assert first.read_bytes() == second.read_bytes()
    for i in (1, 2, 3):
        files = [(folder / "train" / f"{i:06d}.png").read_bytes() for folder in (first.parent, second.parent)]
        assert files[0] == files[1]


def test_more_images_do_not_change_the_first(tmp_path: Path) -> None:
    def image(folder: str, split: str, count: int, seed: int) -> bytes:
        return (write_shapes(tmp_path / folder, split, count, seed=seed).with_suffix("") / "000002.png").read_bytes()

    one = image("a", "train", 2, 0)
    assert one == image("b", "train", 4, 0)
    assert one != image("c", "train", 2, 1)
    assert one != image("d", "val", 2, 0), "training and validation images differ"


def test_json_is_written_last(tmp_path: Path) -> None:
    path = write_shapes(tmp_path, "train", 2)
    target = tmp_path / "train" / "000002.png"
    target.unlink()
    target.mkdir()  # the second image cannot be written
    with pytest.raises(OSError, match="000002"):
        write_shapes(tmp_path, "train", 3)
    assert not path.exists(), "an unfinished data set has no JSON"


@pytest.mark.parametrize(("count", "size"), [(0, 160), (3, 8)])
def test_impossible_sizes_are_refused(tmp_path: Path, count: int, size: int) -> None:
    with pytest.raises(DataError, match="expected 1 or more images of 32 to 4096 pixels"):
        write_shapes(tmp_path, "train", count, size=size)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([32, 100, 160, 257]))
def test_masks_do_not_overlap_and_boxes_are_tight(seed: int, size: int) -> None:
    image, objects = draw_shapes(size, np.random.default_rng(seed))
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    covered = np.zeros((size, size), dtype=int)
    for annotation in objects:
        mask = mask_of(annotation, size)
        x, y, w, h = annotation["bbox"]
        assert mask.box.tolist() == [x, y, x + w, y + h]
        assert mask.area == annotation["area"] > 0
        if isinstance(annotation["segmentation"], dict):
            covered += mask.dense()
    assert covered.max(initial=0) <= 1, "a mask is the visible part"


def test_both_kinds_of_masks_and_polygons_only_of_whole_shapes(drawn: list[Drawn]) -> None:
    both = {"polygon": 0, "rle": 0}
    overlap, polygons = 0, 0
    for _, objects in drawn:
        seen = np.zeros((160, 160), dtype=bool)
        for annotation in objects:
            if isinstance(annotation["segmentation"], dict):
                both["rle"] += 1
                seen |= mask_of(annotation).dense()
        for annotation in objects:
            if isinstance(annotation["segmentation"], list):
                both["polygon"] += 1
                mask = mask_of(annotation)
                overlap += int((mask.dense() & seen).sum())
                polygons += mask.area
    assert both["polygon"] > 50
    assert both["rle"] > 50
    assert overlap < 0.01 * polygons, "of whole shapes next to nothing belongs to others"


def test_what_there_is(drawn: list[Drawn]) -> None:
    counts = [len(objects) for _, objects in drawn]
    assert min(counts) == 0
    assert 6 <= max(counts) <= 8
    assert sum(count == 0 for count in counts) < 25
    labels = np.bincount([a["category_id"] for _, objects in drawn for a in objects], minlength=6)
    assert labels[0] == 0
    assert labels[1:].min() > 0.6 * labels[1:].mean(), "all classes, about as often"


def test_masks_lie_on_the_shapes(drawn: list[Drawn]) -> None:
    """Inside a mask the picture differs from the ground around it."""
    contrasts = []
    for image, objects in drawn:
        ground = np.ones((160, 160), dtype=bool)
        masks = [mask_of(annotation).dense() for annotation in objects]
        for mask in masks:
            ground &= ~mask
        if ground.mean() < 0.3:
            continue
        for mask in masks:
            shifted = np.roll(mask, 25, axis=(0, 1)) & ground  # the same outline where nothing lies
            if shifted.sum() > 30:
                contrasts.append(np.linalg.norm(image[mask].mean(axis=0) - image[ground].mean(axis=0)))
    assert len(contrasts) > 100
    assert np.median(contrasts) > 60
    assert np.quantile(contrasts, 0.02) > 20


def test_colour_does_not_give_away_the_class(drawn: list[Drawn]) -> None:
    colours: dict[int, list[np.ndarray]] = {}
    for image, objects in drawn:
        for annotation in objects:
            colours.setdefault(annotation["category_id"], []).append(image[mask_of(annotation).dense()].mean(axis=0))
    means = np.array([np.mean(found, axis=0) for found in colours.values()])
    spread = np.concatenate([np.array(found) for found in colours.values()]).std(axis=0)
    assert (means.std(axis=0) < 0.3 * spread).all()


def test_png_files(tmp_path: Path) -> None:
    path = write_shapes(tmp_path, "train", 1, size=64)
    entry = json.loads(path.read_text())["images"][0]
    with Image.open(path.with_suffix("") / entry["file_name"]) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))


def test_keypoints_change_nothing_else(tmp_path: Path, drawn: list[Drawn], pointed: list[list[dict[str, Any]]]) -> None:
    added = {"keypoints", "num_keypoints"}
    rest = [[{key: value for key, value in a.items() if key not in added} for a in objects] for objects in pointed]
    assert rest == [objects for _, objects in drawn[:80]]
    plain = write_shapes(tmp_path / "plain", "val", 2, size=64)
    more = write_shapes(tmp_path / "more", "val", 2, size=64, keypoints=True)
    for name in ("000001.png", "000002.png"):
        assert (plain.with_suffix("") / name).read_bytes() == (more.with_suffix("") / name).read_bytes()
    assert "keypoints" not in plain.read_text()
    dataset = read_dataset(more, strict=True)
    assert all(category.keypoints == KEYPOINTS for category in dataset.categories)


def test_keypoints_are_the_extremes_of_the_whole_outline(pointed: list[list[dict[str, Any]]]) -> None:
    polygons = 0
    for annotation in (a for objects in pointed for a in objects):
        x, y, v = points_of(annotation).T
        assert annotation["num_keypoints"] == np.count_nonzero(v)
        assert not x[v == 0].any()
        assert not y[v == 0].any()
        assert ((x >= 0) & (x <= 160) & (y >= 0) & (y <= 160)).all()
        left, top, width, height = annotation["bbox"]
        # The box of what is seen lies between them, but for pixels that the outline cuts.
        edges = np.array([-top, left + width, top + height, -left]) - np.array([-y[0], x[1], y[2], -x[3]])
        assert (edges[v > 0] <= 1).all()
        if isinstance(annotation["segmentation"], list):
            polygons += 1
            corners = np.reshape(annotation["segmentation"], (-1, 2))
            extremes = corners[[corners[:, 1].argmin(), corners[:, 0].argmax()]]
            extremes = np.concatenate([extremes, corners[[corners[:, 1].argmax(), corners[:, 0].argmin()]]])
            np.testing.assert_allclose(np.stack([x, y], axis=1), extremes, atol=0.011)
    assert polygons > 100


def test_visibility_of_keypoints(pointed: list[list[dict[str, Any]]]) -> None:
    counts = {0: 0, 1: 0, 2: 0}
    for objects in pointed:
        masks = np.array([mask_of(annotation).dense() for annotation in objects])
        for i, annotation in enumerate(objects):
            for x, y, v in points_of(annotation):
                counts[int(v)] += 1
                near = masks[:, max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3].any(axis=(1, 2))
                assert near[i] or v < 2, "the shape is seen beside a visible point"
                assert near[np.arange(len(objects)) != i].any() or v != 1, "another shape is seen at a hidden point"
    assert min(counts.values()) > 100
    assert counts[2] > counts[0] + counts[1]


def test_augmentation_of_the_tiny_preset_keeps_the_extremes(tmp_path: Path) -> None:
    config = preset("keypoint_rcnn_tiny")
    dataset = read_dataset(write_shapes(tmp_path, "train", 12, keypoints=True))
    rng = np.random.default_rng(0)
    mirrored, compared = 0, 0
    for i in range(48):
        sample = training_sample(dataset, i % 12, config, rng)
        assert sample.keypoints is not None
        mirrored += int(np.linalg.det(sample.frame.matrix) < 0)
        x, y, v = np.moveaxis(sample.keypoints, -1, 0)
        for low, high, place in ((3, 1, x), (0, 2, y)):
            both = (v[:, low] > 0) & (v[:, high] > 0)
            compared += int(both.sum())
            assert (place[both, low] < place[both, high]).all()
    assert 12 < mirrored < 36
    assert compared > 100

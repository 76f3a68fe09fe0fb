"""Both sides load the same samples, and what is reported of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn.benchmark import loader
from maskrcnn.benchmark.generated_coco import repeat_annotations, write_coco
from maskrcnn.benchmark.loader import bench_loader, compare_samples
from maskrcnn.benchmark.settings import LoaderSettings, Timing
from maskrcnn.benchmark.their_loader import TheirData
from maskrcnn.benchmark.view import View, draw_view
from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset

SIDE = 256
Sides = tuple[Dataset, TheirData]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Sides:
    path = write_coco(tmp_path_factory.mktemp("data"), 2)
    return read_dataset(path), TheirData(path, path.parent)


def views(dataset: Dataset, count: int) -> list[View]:
    rng = np.random.default_rng(0)
    records = [dataset.records[i % len(dataset)] for i in range(count)]
    return [draw_view(i % len(dataset), (r.height, r.width), SIDE, rng) for i, r in enumerate(records)]


def test_both_sides_load_the_same_samples(sides: Sides) -> None:
    seen = views(sides[0], 10)
    assert {view.flipped for view in seen} == {True, False}
    assert any(max(view.size_hw) > SIDE for view in seen)
    found = compare_samples(*sides, seen)
    assert found.agree
    assert found.images == 10
    assert found.matched > 20
    assert found.mask_iou > 0.95
    assert "samples agree" in found.line()


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["flip", "window", "labels", "masks"])
def test_other_samples_are_noticed(sides: Sides, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, theirs = sides
    right = theirs.sample

    def sample(view: View) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if wrong == "flip":
            image, target = right(replace(view, flipped=not view.flipped))
            return image, target
        if wrong == "window":
            return right(replace(view, start_xy=(view.start_xy[0] // 2, view.start_xy[1] // 2)))
        image, target = right(view)
        if wrong == "labels":
            return image, {**target, "labels": target["labels"] + 1}
        return image, {**target, "masks": target["masks"].roll(20, -1)}

    monkeypatch.setattr(theirs, "sample", sample)
    found = compare_samples(dataset, theirs, views(dataset, 10))
    assert not found.agree
    assert "SAMPLES DIFFER" in found.line()


def test_the_views_have_the_size_of_torchvisions_jitter(sides: Sides) -> None:
    from torchvision.transforms import v2

    image = torch.zeros(3, 37, 53, dtype=torch.uint8)
    rng = np.random.default_rng(0)
    for _ in range(30):
        view = draw_view(0, (37, 53), 64, rng)
        assert v2.ScaleJitter((64, 64), scale_range=(view.factor,) * 2)(image).shape[1:] == view.size_hw


def test_the_report() -> None:
    settings = LoaderSettings(size=128, batch_size=2, count=2)
    report = bench_loader(None, settings, Timing(rounds=2, warmup=0, memory=False))
    assert report.agreement.agree
    found = json.loads(json.dumps(report.to_dict()))
    assert found["data"] == {"images": 2, "annotations": report.annotations}
    assert 8 < report.annotations <= 16
    assert found["seconds"]["rounds"] == 2
    speed = found["images_per_second_per_core"]
    assert speed["ours"] == pytest.approx(2 / found["seconds"]["ours"]["median"])
    assert speed["torchvision"] == pytest.approx(2 / found["seconds"]["torchvision"]["median"])
    assert found["worker_memory_bytes"] == {}


def test_annotations_are_repeated(sides: Sides, tmp_path: Path) -> None:
    dataset, _ = sides
    own = sum(record.count for record in dataset.records)
    path, count = repeat_annotations(dataset.path, tmp_path / "more.json", 3 * own - 1)
    again = read_dataset(path, dataset.path.parent)
    assert count == 3 * own == sum(record.count for record in again.records)
    assert again.problems == ()
    assert len(again) == 3 * len(dataset)
    for i in range(len(again)):
        np.testing.assert_array_equal(again.annotations(i).boxes, dataset.annotations(i % 2).boxes)
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(DataError, match="--no-memory"):
        repeat_annotations(empty, tmp_path / "none.json", 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell")
def test_memory_of_real_workers(sides: Sides, tmp_path: Path) -> None:
    """torchvision's dictionaries are copied into every worker, 2 kB an annotation; our arrays are not."""
    found = loader.measure_workers(sides[0], LoaderSettings(size=128, annotations=5000), tmp_path)
    assert list(found["ours"]) == list(found["torchvision"])
    few, many = found["ours"]
    assert many > 3.9 * few > 3.9 * 4999
    ours, theirs = (found[side][many] - found[side][few] for side in ("ours", "torchvision"))
    assert theirs > 20e6, found
    assert ours < theirs / 3, found

"""COCO figures of a model on a data set."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from maskrcnn.config import DetectConfig
from maskrcnn.data.convert import convert
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.errors import DataError, ImageError, WeightsError
from maskrcnn.evaluation.coco import evaluate_results
from maskrcnn.predict import Predictor, Tiled, Tiling, TorchBackend
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.images import ImageBatch
from maskrcnn.training.evaluate import evaluate
from small_data import random_predictor, write_small
from small_people import write_people


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return random_predictor()


def test_a_model_file_a_predictor_and_its_written_results_agree(predictor: Predictor, tmp_path: Path) -> None:
    data = write_small(tmp_path, "val", 3)
    predictor.save(tmp_path / "m.safetensors")
    report = evaluate(predictor, data, results_out=tmp_path / "results.json")
    assert (report.images, report.objects) == (3, len(json.loads(data.read_text())["annotations"]))
    assert report.detections > 0
    assert evaluate(tmp_path / "m.safetensors", str(data)) == report
    assert evaluate_results(read_dataset(data), tmp_path / "results.json") == report


def test_the_annotations_are_read_once(predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_small(tmp_path, "val", 2)
    content = json.loads(data.read_text())
    content["annotations"][0]["category_id"] = 99
    data.write_text(json.dumps(content))
    read: list[Path] = []
    opened = coco.open_text
    monkeypatch.setattr(coco, "open_text", lambda path: (read.append(path), opened(path))[1])
    report = evaluate(predictor, data)
    assert read == [data]
    assert report == evaluate(predictor, read_dataset(data))
    assert report.skipped[0].startswith(f"{data}: annotation 1 of image 1")


def test_formats_that_know_classes_by_name_are_judged_alike(predictor: Predictor, tmp_path: Path) -> None:
    first = read_dataset(write_small(tmp_path / "coco", "val", 3))
    convert(first, tmp_path / "labelme", "labelme")
    second = read_dataset(tmp_path / "labelme")
    assert [category.id for category in second.categories] == ["blue", "red"]
    assert evaluate(predictor, second) == evaluate(predictor, first)
    (file,) = (tmp_path / "labelme").glob("*1.json")
    content = json.loads(file.read_text())
    content["shapes"] = [shape for shape in content["shapes"] if shape["label"] == "red"]
    file.write_text(json.dumps(content))
    assert evaluate(predictor, file).objects == len(content["shapes"])
    file.write_text(file.read_text().replace("red", "green"))
    with pytest.raises(DataError, match="only the data set has green"):
        evaluate(predictor, file)


def test_limits(predictor: Predictor, tmp_path: Path) -> None:
    data = write_small(tmp_path, "val", 3)
    report = evaluate(predictor, data, limit=2, max_detections=4)
    assert (report.images, report.max_detections) == (2, 4)
    assert report.detections <= 8


def test_a_large_image_is_judged_in_tiles_and_never_read_whole(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_small(tmp_path, "val", 1)
    tiled = Tiled(predictor, Tiling(40, 16))
    expected = evaluate(tiled, data)
    assert expected.max_detections == 6 * predictor.config.model.detect.max_detections
    picture = np.array(Image.open(tmp_path / "val" / "0.png"))
    tifffile.imwrite(tmp_path / "val" / "0.tif", picture, tile=(16, 16), photometric="rgb")
    content = json.loads(data.read_text())
    content["images"][0]["file_name"] = "0.tif"
    data.write_text(json.dumps(content))
    monkeypatch.setattr("maskrcnn.files.images.MOST_PIXELS", 1000)
    assert evaluate(tiled, data) == expected
    assert evaluate(predictor, data).undefined is not None, "it has too many pixels to be read whole"
    content["images"][0]["height"] += 1
    data.write_text(json.dumps(content))
    with pytest.raises(ImageError, match="the size of image"):
        evaluate(tiled, data, strict=True)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_without_images_is_refused(predictor: Predictor, tmp_path: Path, limit: int) -> None:
    with pytest.raises(DataError, match=f"limit: expected a whole number of 1 or more images .*, found {limit}$"):
        evaluate(predictor, write_small(tmp_path, "val", 2), limit=limit)


def test_other_categories_are_refused(predictor: Predictor, tmp_path: Path) -> None:
    data = write_small(tmp_path, "val", 1)
    content = json.loads(data.read_text())
    content["categories"][0]["id"] = 9
    for annotation in content["annotations"]:
        annotation["category_id"] = 3
    data.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"only the data set has red \(id 9\), and only the model has red \(id 7\)"):
        evaluate(predictor, data)
    with pytest.raises(WeightsError, match="no such file"):
        evaluate(tmp_path / "none.safetensors", data)


class Seer(nn.Module):
    """In the place of a network: finds what is annotated on one image after the other, in network-input pixels."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.pixel_mean = torch.zeros(1)
        self.dataset = dataset
        self.seen = 0

    def detect(self, images: ImageBatch, config: DetectConfig) -> Detections:
        record, annotations = self.dataset.records[self.seen], self.dataset.annotations(self.seen)
        assert annotations.keypoints is not None
        self.seen += 1
        factor = images.sizes_hw[0].flip(0) / torch.tensor([record.width, record.height])
        points = torch.from_numpy(annotations.keypoints).to(torch.float32) * torch.cat([factor, torch.ones(1)])
        boxes = torch.from_numpy(annotations.boxes) * factor.repeat(2)
        count = len(boxes)
        labels, valid = torch.from_numpy(annotations.labels), torch.ones(1, count, dtype=torch.bool)
        return Detections(boxes[None], torch.full((1, count), 0.9), labels[None], valid, keypoints=points[None])


def seer(predictor: Predictor, data: Path) -> Predictor:
    dataset = read_dataset(data)
    model = replace(predictor.config.model, num_classes=1)
    image = replace(predictor.config.image, short_side=100, long_side=200)
    config = replace(predictor.config, model=model, image=image, categories=dataset.categories)
    return Predictor(TorchBackend(Seer(dataset)), config)  # type: ignore[arg-type]


def test_keypoints_of_a_model_are_judged_in_the_frame_of_the_file(predictor: Predictor, tmp_path: Path) -> None:
    data = write_people(tmp_path, "val", 3)
    content = json.loads(data.read_text())
    # A spread so small that half a pixel, the step between the frames, would be far off.
    content["categories"][0]["sigmas"] = [0.001] * 5
    data.write_text(json.dumps(content))
    report = evaluate(seer(predictor, data), data, results_out=tmp_path / "results.json")
    assert report.keypoints is not None
    assert report.keypoints["AP"] == report.keypoints["AR"] == report.score == pytest.approx(1)
    assert report.boxes is not None
    assert report.boxes["AP"] == pytest.approx(1)
    assert report.masks is None
    assert evaluate_results(read_dataset(data), tmp_path / "results.json") == report
    results: list[dict[str, Any]] = json.loads((tmp_path / "results.json").read_text())
    for entry in results:
        entry["keypoints"] = [value + 0.5 * (i % 3 < 2) for i, value in enumerate(entry["keypoints"])]
    shifted = evaluate_results(read_dataset(data), results)
    assert shifted.keypoints is not None
    assert shifted.keypoints["AP"] == 0


def test_keypoints_of_a_model_on_data_without_any(predictor: Predictor, tmp_path: Path) -> None:
    data = write_people(tmp_path, "val", 1)
    model = seer(predictor, data)
    content = json.loads(data.read_text())
    del content["categories"][0]["keypoints"], content["categories"][0]["skeleton"]
    data.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"expected no keypoints, because the category person of .*val\.json names none"
    ):
        evaluate(model, data)


def test_broken_images_are_skipped_or_refused_and_batches_change_little(
    predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_small(tmp_path, "val", 5)
    whole = evaluate(predictor, path)
    batched = evaluate(predictor, path, batch_size=2)
    assert batched.score == pytest.approx(whole.score, abs=0.02)
    (tmp_path / "val" / "2.png").write_bytes(b"no image")
    assert evaluate(predictor, path).images == whole.images - 1
    assert "skipped: " in capsys.readouterr().err
    before = threading.active_count()
    with pytest.raises(ImageError, match=r"2\.png") as caught:
        evaluate(predictor, path, strict=True)
    assert caught.traceback  # with its frames, and still no thread of theirs
    assert threading.active_count() == before


def thread_settings() -> list[object]:
    """What this thread and a new one would compute with."""
    seen: list[object] = [torch.get_num_threads(), threading.active_count()]
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return seen


@pytest.mark.parametrize("threads", [1, 2])
def test_thread_settings_stay_as_they_were(predictor: Predictor, tmp_path: Path, threads: int) -> None:
    data = write_small(tmp_path, "val", 2)
    given = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        before = thread_settings()
        evaluate(predictor, data)
        assert thread_settings() == before
        (tmp_path / "val" / "1.png").write_bytes(b"no image")
        with pytest.raises(ImageError):
            evaluate(predictor, data, strict=True)
        assert thread_settings() == before
    finally:
        torch.set_num_threads(given)


def test_images_that_cannot_be_read_give_no_figures(predictor: Predictor, tmp_path: Path) -> None:
    data = write_small(tmp_path, "val", 2)
    for image in (tmp_path / "val").iterdir():
        image.unlink()
    report = evaluate(predictor, data)
    assert report.score is None
    assert report.undefined == "no AP is defined: 0 images were judged, with 0 objects to find"
    assert json.loads(report.to_json())["boxes"]["AP"] is None


def test_a_data_set_without_objects_is_refused_before_the_network_runs(predictor: Predictor, tmp_path: Path) -> None:
    data = write_small(tmp_path, "val", 2)
    content = json.loads(data.read_text())
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    data.write_text(json.dumps(content))
    with pytest.raises(DataError, match="is a crowd region"):
        evaluate(predictor, data, track=lambda items, total: pytest.fail("the network runs"))

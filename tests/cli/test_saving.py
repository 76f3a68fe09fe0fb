"""`predict --save`: the objects of a model as a data set."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints, WritableName
from maskrcnn.predict import TorchBackend
from maskrcnn.structures.masks import RLE
from small_data import random_predictor, write_small


@pytest.fixture
def predicting(command, tmp_path):
    """Runs `predict` on three small images with the given flags and a model of a few large masks; results go to `o`."""
    write_small(tmp_path, "images", 3)
    model = random_predictor().with_detections(6)
    detect = replace(model.config.model.detect, mask_threshold=0.3)
    config = replace(model.config, model=replace(model.config.model, detect=detect))
    replace(model, config=config).save(tmp_path / "m.safetensors")

    def run(*flags):
        paths = (tmp_path / "images", "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o", "--no-draw")
        return command("predict", *paths, *flags)

    return run


@pytest.mark.slow
def test_objects_are_saved_in_every_format_that_can_be_written(predicting, tmp_path):
    assert predicting().code == 0
    results = json.loads((tmp_path / "o" / "predictions.json").read_text())
    least = sorted(entry["score"] for entry in results)[9]
    expected = [entry for entry in results if entry["score"] >= least]
    assert (len(expected), len(results)) == (9, 18)
    for form in get_args(WritableName):
        ran = predicting("--save", form, "--min-score", least, "--json")
        assert ran.code == 0, ran.err
        saved = Path(json.loads(ran.out)["saved"])
        assert saved == tmp_path / "o" / form
        dataset = read_dataset(saved, hints=Hints(format=form, missing="empty" if form == "object-masks" else None))
        assert len(dataset) == 3
        areas = [mask.area for index in range(3) for mask in dataset.annotations(index).masks()]
        if form not in ("yolo", "label-images"):  # doubles and overlaps
            assert sorted(areas) == sorted(RLE.from_coco(entry["segmentation"]).area for entry in expected), form
    written = json.loads((tmp_path / "o" / "coco" / "annotations.json").read_text())["annotations"]
    assert [entry["score"] for entry in written] == pytest.approx([entry["score"] for entry in expected])


def test_saved_masks_do_not_overlap_on_request(predicting, tmp_path):
    assert predicting("--save", "rle-csv", "--min-score", 0).code == 0
    with_overlaps = read_dataset(tmp_path / "o" / "rle-csv")
    shutil.rmtree(tmp_path / "o")
    ran = predicting("--save", "rle-csv", "--min-score", 0, "--no-overlaps", "--link")
    assert ran.code == 0, ran.err
    apart = read_dataset(tmp_path / "o" / "rle-csv")
    assert all(image.is_symlink() for image in (tmp_path / "o" / "rle-csv" / "images").iterdir())
    for index in range(3):
        before, after = (
            np.array([mask.dense() for mask in d.annotations(index).masks()]) for d in (with_overlaps, apart)
        )
        assert before.sum(axis=0).max() > 1
        assert after.sum(axis=0).max() == 1
        np.testing.assert_array_equal(after.any(axis=0), before.any(axis=0))
        np.testing.assert_array_equal(after[0], before[0])  # the best one loses nothing


def test_a_saved_table_has_the_names_of_the_data_set(predicting, tmp_path):
    (tmp_path / "sample.csv").write_text("ImageId,EncodedPixels\n1,\n0,\nlost,\n2,\n")
    ran = predicting("--data", tmp_path / "sample.csv", "--save", "rle-csv", "--min-score", 1)
    assert ran.code == 0, ran.err
    rows = (tmp_path / "o" / "rle-csv" / "annotations.csv").read_text().splitlines()
    assert rows == ["ImageId,EncodedPixels,ClassId", "0,,", "1,,", "2,,"]
    assert "left out" in ran.err
    assert "image lost: expected an image at " in ran.err


def test_what_cannot_be_saved_is_one_line_before_the_work(predicting, tmp_path, command):
    for flags, said in (
        (("--link",), "expected --save with --link, found none"),
        (("--no-overlaps",), "expected --save with --no-overlaps, found none"),
        (("--save", "via"), "via"),
    ):
        ran = predicting(*flags)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
    paths = (tmp_path / "images", "--model", tmp_path / "m.safetensors", "--out", tmp_path / "images" / "o")
    ran = command("predict", *paths, "--no-draw", "--save", "coco")
    assert (ran.code, ran.out) == (2, "")
    assert "expected a folder outside of" in ran.err
    (tmp_path / "o" / "coco").mkdir(parents=True)
    (tmp_path / "o" / "coco" / "old.json").write_text("{}")
    ran = predicting("--save", "coco")
    assert ran.code == 2
    assert "coco: expected no folder or an empty one, found old.json in it" in ran.err


@pytest.mark.parametrize(("batches", "saved"), [(1, 0), (6, 3)])
def test_an_interrupted_run_saves_the_images_that_are_finished(predicting, tmp_path, monkeypatch, batches, saved):
    shutil.copytree(tmp_path / "images", tmp_path / "images" / "more")
    seen, detect = [], TorchBackend.detect

    def interrupted(self, images, settings):
        seen.append(images)
        if len(seen) == batches:
            raise KeyboardInterrupt
        return detect(self, images, settings)

    monkeypatch.setattr(TorchBackend, "detect", interrupted)
    ran = predicting("--save", "coco", "--min-score", 0)
    assert (ran.code, ran.out) == (130, "")
    assert f"interrupted: {tmp_path}/o/predictions.json holds the images that were finished" in ran.err
    if not saved:
        assert "no data set" in ran.err
        return
    assert f"data set: {tmp_path}/o/coco, 18 objects in 3 images" in ran.err
    assert len(read_dataset(tmp_path / "o" / "coco")) == saved
    assert len(json.loads((tmp_path / "o" / "predictions.json").read_text())) == 18


def test_the_number_of_saved_objects_is_said(predicting, tmp_path):
    ran = predicting("--save", "coco", "--min-score", 1)
    assert ran.code == 0, ran.err
    assert f"data set: {tmp_path}/o/coco, 0 objects in 3 images" in ran.out
    for image in (1, 2):
        (tmp_path / "images" / f"{image}.png").write_bytes(b"no image")
    ran = predicting()
    assert "6 objects in 1 image: " in ran.out
    assert "2 images skipped, see above" in ran.out

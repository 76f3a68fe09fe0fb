from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.cli.calibrating import Calibrating, Int8Run
from maskrcnn.cli.reading import open_dataset
from maskrcnn.data.hints import NO_HINTS
from maskrcnn.evaluation.coco import Report
from maskrcnn.export.int8 import Calibration
from small_data import random_predictor, write_small


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--calibrate", "photos"], "--calibrate belongs to --precision int8, which is missing"),
        (["--data", "val.json"], "--data belongs to --precision int8, which is missing"),
        (["--precision", "int8"], "needs images of the kind that the model will see: --calibrate IMAGES"),
        (["--precision", "int8", "--calibrate", "p", "--max-drop", "0.1"], "belong to --data, which is missing"),
        (
            ["--precision", "int8", "--calibrate", "p", "--data", "d", "--limit", "0"],
            "--limit: expected 1 image or more, found 0",
        ),
        (
            ["--precision", "int8", "--calibrate", "p", "--data", "d", "--max-drop", "-1"],
            "--max-drop: expected a difference of AP from 0 to 1, found -1.0",
        ),
    ],
)
def test_flags_of_int8_without_sense_are_refused_at_once(command, flags, message):
    ran = command("export", "--model", "no.safetensors", "out.onnx", *flags)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert message in ran.err


def test_images_that_cannot_be_read_do_not_count(command, tmp_path):
    random_predictor().save(tmp_path / "m.safetensors")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(9):
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(photos / f"{number}.png")
    for number in (1, 4):
        (photos / f"{number}.png").write_bytes(b"no image")
    flags = ["--model", tmp_path / "m.safetensors", "--precision", "int8", "--calibrate"]
    ran = command("export", *flags, photos, tmp_path / "m.onnx")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("skipped: ") == 2
    assert "int8 needs 8 or more images that can be read, and better 64, found 7" in ran.err
    nothing = command("export", *flags, tmp_path / "no", tmp_path / "m.onnx")
    assert (nothing.code, nothing.err.count("\n")) == (2, 1)
    assert not (tmp_path / "m.onnx").exists()


def report(masks: float, boxes: float) -> Report:
    figures = ({"AP": value, "AR1": 0.2, "AR100": value + 0.1, "ARs": None} for value in (masks, boxes))
    return Report(*figures, per_class={}, images=4, objects=9, detections=9, max_detections=100)


@pytest.mark.parametrize(
    ("after", "objection"),
    [
        (report(0.498, 0.6), None),
        (report(0.52, 0.59), "AP of boxes falls from 0.6000 to 0.5900, more than --max-drop 0.005"),
        (report(0.49, 0.7), "AP of masks falls from 0.5000 to 0.4900, more than --max-drop 0.005"),
    ],
)
def test_a_fall_of_any_ap_is_an_objection_and_the_table_shows_both_sides(after, objection, monkeypatch):
    run = Int8Run(Calibrating(), None, Calibration([Path("a.png")] * 64), before=report(0.5, 0.6))
    monkeypatch.setattr(run, "measure", lambda model: after)
    monkeypatch.setattr("maskrcnn.predict.load", lambda path, precision: None)
    found = run.objection(Path("written"))
    assert found is None if objection is None else found.startswith(objection)
    rows = [line.split() for line in run.text(Path("out")).splitlines()]
    change = f"{after.masks['AP'] - 0.5:+.4f}"
    assert rows[2] == ["masks", "AP", "0.5000", f"{after.masks['AP']:.4f}", change]
    assert rows[3] == ["masks", "AR100", "0.6000", f"{after.masks['AR100']:.4f}", change]
    assert [row[:2] for row in rows[4:]] == [["boxes", "AP"], ["boxes", "AR100"]]


def test_images_that_calibrate_and_judge_are_said(capfd, tmp_path):
    """Copies in another folder count, and images behind --limit do not."""
    dataset = open_dataset(write_small(tmp_path, "val", 3), NO_HINTS)
    first, _, last = (Path(path) for path in dataset.records.paths)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(8):
        Image.fromarray(np.full((40, 40, 3), number, np.uint8)).save(photos / f"{number}.png")

    capfd.readouterr()  # what opening the data set says

    def said(limit: int | None = None) -> str:
        calibration = Calibration(sorted(photos.iterdir()))
        Int8Run(Calibrating(limit=limit), dataset, calibration).say_shared_images(dataset)
        return capfd.readouterr().err

    assert said() == ""
    shutil.copy(last, photos / "copy.png")
    assert f"1 of 3 images of --data are also in --calibrate, first: {last}" in said()
    assert said(limit=2) == ""
    shutil.copy(first, photos / "again.png")
    assert f"2 of 3 images of --data are also in --calibrate, first: {first}" in said()

"""Data sets of other formats than COCO on the command line: what is said, and the flags that say how to read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrcnn.training import loop
from small_scene import save_images, save_picture, scene


def label_images(folder: Path) -> Path:
    """The scene as label images."""
    save_images(folder / "images")
    for name, things in scene().items():
        picture = np.zeros((40, 56), dtype=np.uint8)
        for number, thing in enumerate(things, start=1):
            picture[thing.mask] = number
        save_picture(folder / "masks" / f"{name}.png", picture)
    return folder


def test_check_says_the_format_and_the_choices_of_the_reader(command, tmp_path):
    label_images(tmp_path)
    save_images(tmp_path / "images", ("three",))
    ran = command("data", "check", tmp_path)
    assert ran.code == 1, "one object of the scene has two parts, which may be two objects"
    assert ran.out.splitlines()[0] == f"{tmp_path}: label images, 2 images, 5 objects"
    assert ran.out.splitlines()[1].startswith(f"  note: {tmp_path}: 1 image without annotations is left out")
    assert "id in several separate parts (1)" in ran.out
    said = json.loads(command("data", "check", tmp_path, "--missing", "empty", "--json").out)
    assert (said["format"], said["notes"], said["images"], said["objects"]) == ("label images", [], 3, 5)


def test_show_draws_any_format(command, tmp_path):
    ran = command("data", "show", label_images(tmp_path / "set"), "--out", tmp_path / "out")
    assert ran.code == 0
    assert ran.err.startswith(f"{tmp_path / 'set'}: label images: 2 images, 5 objects, 1 class (object)\n")
    drawn = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in drawn] == ["000000_one.png", "000001_two.png"]
    with Image.open(drawn[0]) as picture:
        assert picture.size == (56, 40)


def test_a_flag_that_the_format_has_no_use_for_is_an_error(command, tmp_path):
    ran = command("data", "check", label_images(tmp_path), "--order", "down")
    assert ran.code == 2
    assert ran.err == f"error: {tmp_path}: found label images, for which --order means nothing; leave it out\n"


def test_a_format_that_is_said_is_tried(command, tmp_path):
    ran = command("data", "check", label_images(tmp_path), "--format", "yolo")
    assert ran.code == 2
    assert ran.err.startswith(f"error: {tmp_path}: expected images")
    assert ran.err.count("\n") == 1


@pytest.fixture
def training(monkeypatch) -> dict[str, Any]:
    """What `maskrcnn train` hands to the training loop."""
    given: dict[str, Any] = {}

    def train(config: Any, data: Any, **options: Any) -> loop.Summary:
        given.update(options, data=data)
        return loop.Summary(Path(), Path(), Path(), 0, 0.0, None, (), True)

    monkeypatch.setattr(loop, "train", train)
    return given


def test_one_path_with_parts_is_training_and_validation_data(command, tmp_path, training):
    rows = np.arange(40, dtype=np.uint8)[:, None].repeat(56, axis=1)  # each row is an object
    for part, images in (("train", ("one", "two")), ("val", ("three",))):
        save_images(tmp_path / part / "images", images)
        save_picture(tmp_path / part / "masks" / f"{images[0]}.png", rows)
    ran = command("train", tmp_path, "--val", tmp_path, "--out", tmp_path / "run")
    assert ran.code == 0
    assert training["data"].path == tmp_path / "train"
    assert training["val"].path == tmp_path / "val"
    assert ran.err.count("label images: 1 image, ") == 2


def test_one_path_without_parts_is_both(command, tmp_path, training):
    assert (
        command(
            "train", label_images(tmp_path), "--val", tmp_path, "--out", tmp_path / "run", "--missing", "empty"
        ).code
        == 0
    )
    assert training["data"].path == training["val"].path == tmp_path


def test_results_are_judged_against_any_format(command, tmp_path):
    label_images(tmp_path)
    (tmp_path / "found.json").write_text(
        json.dumps([{"image_id": "two", "category_id": 1, "bbox": [50, 12, 6, 17], "score": 0.9}])
    )
    ran = command("evaluate", "--data", tmp_path, "--results", tmp_path / "found.json", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["boxes"]["AP"] > 0


def test_convert_says_what_it_wrote_and_what_is_lost(command, tmp_path):
    path = label_images(tmp_path / "set")
    ran = command("data", "convert", path, tmp_path / "out", "--to", "yolo")
    assert (ran.code, ran.out) == (0, f"2 images in {tmp_path / 'out'}\n")
    lost = "2 objects have parts or holes, joined by bridges that some tools draw"
    assert ran.err.splitlines()[1:] == [f"lost: {lost}"]
    again = command("data", "check", tmp_path / "out")
    assert again.out.splitlines()[0] == f"{tmp_path / 'out' / 'data.yaml'}: YOLO segmentation, 2 images, 5 objects"
    twice = command("data", "convert", path, tmp_path / "out", "--to", "coco")
    assert (twice.code, twice.out) == (2, "")
    assert f"error: {tmp_path / 'out'}: expected no folder or an empty one, found data.yaml in it\n" in twice.err

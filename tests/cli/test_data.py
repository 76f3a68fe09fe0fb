from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from planted import SIDE, faulty
from small_data import write_small
from small_people import write_people


@pytest.fixture
def small(tmp_path):
    """Two images with one square each, as COCO JSON beside a folder `images`."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "images" / name)
    square = {"category_id": 7, "iscrowd": 0, "area": 64, "bbox": [4, 4, 8, 8]}
    polygon = [[4, 4, 12, 4, 12, 12, 4, 12]]
    content = {
        "images": [{"id": i, "file_name": f"{n}.png", "height": 20, "width": 30} for i, n in ((1, "a"), (2, "b"))],
        "annotations": [{"id": i, "image_id": i, "segmentation": polygon, **square} for i in (1, 2)],
        "categories": [{"id": 7, "name": "square"}],
    }
    file = tmp_path / "set.json"
    file.write_text(json.dumps(content))
    return file


def test_check_counts(command, small):
    ran = command("data", "check", small, "--json")
    assert ran.code == 0
    content = json.loads(ran.out)
    assert content.pop("statistics")["objects_an_image"]["median"] == 1
    assert content == {
        "format": "COCO JSON",
        "notes": [],
        "images": 2,
        "objects": 2,
        "categories": [{"id": 7, "name": "square", "objects": 2}],
        "keypoints": {},
        "problems": [],
        "findings": [],
        "usable": True,
        "hurts": False,
    }


def test_check_names_a_broken_image(command, small):
    broken = small.parent / "images" / "b.png"
    broken.write_bytes(broken.read_bytes()[:40])
    ran = command("data", "check", small, "--json")
    assert ran.code == 0
    problems = json.loads(ran.out)["problems"]
    assert len(problems) == 1
    assert "b.png" in problems[0]
    assert (
        "usable; problems that training works around and --strict refuses: 1\n" in command("data", "check", small).out
    )
    strict = command("data", "check", small, "--strict")
    assert (strict.code, "error" in strict.err) == (1, False)


def test_brackets_and_colons_are_printed_as_they_are(command, small):
    content = json.loads(small.read_text())
    content["categories"][0]["name"] = "[red] :star:"
    odd = small.parent / "set [b].json"
    odd.write_text(json.dumps(content))
    ran = command("data", "check", odd)
    assert ran.out.splitlines()[:2] == [f"{odd}: COCO JSON, 2 images, 2 objects", "  [red] :star: (id 7): 2 objects"]


def test_check_names_an_image_of_another_size(command, small):
    Image.new("RGB", (31, 20)).save(small.parent / "images" / "b.png")
    ran = command("data", "check", small, "--json")
    problems = json.loads(ran.out)["problems"]
    assert len(problems) == 1
    assert "30" in problems[0]
    assert "31" in problems[0]


@pytest.mark.parametrize("content", [None, "", "[1, 2", '{"images": []}', "[]"])
def test_an_unusable_json_is_one_line(command, tmp_path, content):
    file = tmp_path / "bad.json"
    if content is not None:
        file.write_text(content)
    ran = command("data", "check", file)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert "bad.json" in ran.err
    assert ran.err.count("\n") == 1


def test_show_draws_pictures(command, small, tmp_path):
    ran = command("data", "show", small, "--out", tmp_path / "look", "--limit", "1")
    assert ran.code == 0
    (picture,) = (tmp_path / "look").iterdir()
    with Image.open(picture) as image:
        assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 1


def test_show_skips_what_cannot_be_read_and_refuses_to_draw_nothing(command, small, tmp_path):
    images = sorted(path for path in small.parent.rglob("*.png"))
    images[0].write_bytes(b"no image")
    ran = command("data", "show", small, "--out", tmp_path / "look")
    assert ran.code == 0
    assert f"skipped: {images[0]}" in ran.err
    assert len(list((tmp_path / "look").iterdir())) == len(images) - 1
    for image in images:
        image.write_bytes(b"no image")
    ran = command("data", "show", small, "--out", tmp_path / "look")
    assert ran.code == 2
    assert f"none of its {len(images)} annotated images can be read" in ran.err


@pytest.mark.parametrize("limit", [0, -1])
def test_show_refuses_to_draw_no_picture(command, small, tmp_path, limit):
    ran = command("data", "show", small, "--out", tmp_path / "look", "--limit", limit)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: --limit: expected 1 or more images to draw, found {limit}\n"


def test_show_refuses_a_file_as_its_folder(command, small):
    ran = command("data", "show", small, "--out", small)
    assert (ran.code, ran.out) == (2, "")
    assert "expected a folder to write to, found a file" in ran.err


def test_check_counts_categories_of_one_name_apart(command, small):
    content = json.loads(small.read_text())
    content["categories"].append({"id": 9, "name": "square"})
    content["annotations"][1]["category_id"] = 9
    content["annotations"].append(dict(content["annotations"][1], id=3))
    small.write_text(json.dumps(content))
    shown = command("data", "check", small, "--json")
    assert [(c["id"], c["objects"]) for c in json.loads(shown.out)["categories"]] == [(7, 1), (9, 2)]
    assert "'square' is the name of id 7, 'square' is the name of id 9: they are different classes" in shown.out


def test_check_names_boxes_that_are_not_those_of_their_masks(command, small):
    content = json.loads(small.read_text())
    content["annotations"][1]["bbox"] = [4, 4, 12, 12]  # x1, y1, x2, y2
    small.write_text(json.dumps(content))
    ran = command("data", "check", small, "--json")
    content = json.loads(ran.out)
    assert (ran.code, content["hurts"]) == (1, True)
    assert content["findings"] == [
        {
            "kind": "box-beside-mask",
            "severity": "hurts",
            "what": "bbox 4, 4, 12, 12, mask at 4, 4, 8, 8 (x, y, width, height)",
            "image_id": 2,
            "file": str(small.parent / "images" / "b.png"),
            "annotation_ids": [2],
            "other_file": None,
        }
    ]
    ran = command("data", "check", small)
    assert ran.code == 1
    assert "  hurts training: box that is not the box of its mask (1); a bbox holds x, y" in ran.out
    assert "    annotation 2 of image 2 (b.png): bbox 4, 4, 12, 12, mask at" in ran.out
    assert "problems: 1; those that hurt training come first\n" in ran.out


def test_check_names_images_with_more_objects_than_are_predicted(command, small):
    content = json.loads(small.read_text())
    boxes = [{"bbox": [i % 20, 4 * (i // 20), 3, 3], "segmentation": []} for i in range(100)]
    content["annotations"] += [{**content["annotations"][0], **box, "id": 10 + i} for i, box in enumerate(boxes)]
    small.write_text(json.dumps(content))
    ran = command("data", "check", small)
    assert ran.code == 0
    assert "image with more objects than a model predicts (1); train with --model.detect.max-detections" in ran.out
    assert "image 1 (a.png): 101 objects; a model that predicts at most 100 cannot find them all" in ran.out
    assert "no problems found" in ran.out


def test_keypoints_are_counted_and_shown(command, tmp_path):
    file = write_people(tmp_path / "people", "train", 2)
    content = json.loads(file.read_text())
    content["annotations"][0]["num_keypoints"] = 0
    content["annotations"][1]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    labelled = sum(annotation["num_keypoints"] for annotation in content["annotations"][2:])
    ran = command("data", "check", file, "--json")
    assert json.loads(ran.out)["keypoints"] == {"person": {"labelled": labelled, "objects": 2}}
    assert f"keypoints of person: {labelled} labelled, on 2 objects" in command("data", "check", file).out
    assert command("data", "show", file, "--out", tmp_path / "with").code == 0
    for annotation in content["annotations"]:
        annotation["keypoints"] = []
    file.write_text(json.dumps(content))
    assert command("data", "show", file, "--out", tmp_path / "without").code == 0
    pictures = [np.asarray(Image.open(tmp_path / kind / "000001_1.png")) for kind in ("with", "without")]
    assert not np.array_equal(*pictures)


def test_the_command_writes_the_report_and_figures(command, tmp_path):
    path, out = faulty(tmp_path / "set"), tmp_path / "report.html"
    ran = command("data", "check", path, "--report", out, "--preset", "mask_rcnn_tiny", "--json")
    figures = json.loads(ran.out)["statistics"]
    assert ran.code == 1
    assert out.read_text().startswith("<!doctype html>")
    assert figures["objects_an_image"]["max"] == 3
    assert figures["image_sizes"] == {f"{SIDE[1]} x {SIDE[0]}": 6}
    assert figures["small"] + figures["medium"] + figures["large"] == 13
    again = command("data", "check", path, "--report", path)
    assert (again.code, "found one that is read" in again.err) == (2, True)


def test_check_overwrites_nothing_that_it_reads(command, tmp_path):
    for side in ("train", "val", "pictures"):
        (tmp_path / side).mkdir()
    train, val = write_small(tmp_path / "train", "images", 2), write_small(tmp_path / "val", "images", 2)
    model, notes = tmp_path / "m.safetensors", tmp_path / "pictures" / "notes.txt"
    model.write_bytes(b"a model")
    notes.write_text("of a person")
    read = {file: file.read_bytes() for file in (train, val, model, notes)}
    for flags in (
        ("--val", val, "--report", val),
        ("--model", model, "--report", model),
        ("--images", notes.parent, "--report", notes),
        ("--val", val, "--val-images", notes.parent, "--report", notes),
    ):
        ran = command("data", "check", train, *flags)
        assert (ran.code, ran.out, "found one that is read" in ran.err) == (2, "", True), flags
    assert {file: file.read_bytes() for file in read} == read
    for flags in (("--val", val.parent), ("--val", val, "--val-images", notes.parent)):
        ran = command("data", "check", train, *flags, "--fix", flags[-1] / "fixed")
        assert (ran.code, ran.out, "expected a folder outside of" in ran.err) == (2, "", True), flags


def test_check_writes_a_repaired_copy(command, tmp_path):
    path = faulty(tmp_path / "set")
    ran = command("data", "check", path, "--fix", tmp_path / "fixed")
    assert ran.code == 1
    assert "fixed: 1 box becomes that of its mask\n" in ran.out
    assert f"5 images in {tmp_path / 'fixed'}\n" in ran.out
    again = command("data", "check", tmp_path / "fixed", "--json")
    assert (again.code, json.loads(again.out)["problems"]) == (0, [])
    new = tmp_path / "set" / ".." / "new"  # the name of the same folder may be another one
    inside = command("data", "check", path, "--fix", new, "--report", tmp_path / "new" / "r.html")
    assert (inside.code, inside.out) == (2, "")
    assert "r.html: expected a file outside of --fix" in inside.err
    refused = command("data", "check", path, "--fix", tmp_path / "set")
    assert (refused.code, refused.out) == (2, "")
    assert "expected no folder or an empty one" in refused.err


def test_a_copy_without_repairs_says_so(command, small, tmp_path):
    ran = command("data", "check", small, "--fix", tmp_path / "fixed")
    assert ran.code == 0
    assert "fixed: nothing; the copy holds what was read\n2 images in" in ran.out


def test_show_draws_what_is_asked_for(command, tmp_path):
    path, out = faulty(tmp_path / "set"), tmp_path / "look"
    filters = {
        ("--fault", "duplicate-object"): ["000000_1.png"],
        ("--names", "[23].png"): ["000001_2.png", "000002_3.png"],
        ("--classes", "leaf", "--limit", "1"): ["000000_1.png"],
        ("--sheet", "--names", "[23].png", "--augment", "--preset", "mask_rcnn_tiny"): ["sheet.png"],
    }
    for number, (flags, names) in enumerate(filters.items()):
        ran = command("data", "show", path, "--out", out / str(number), *flags)
        assert (ran.code, sorted(file.name for file in (out / str(number)).iterdir())) == (0, names), ran.err
    ran = command("data", "show", path, "--out", out / "none", "--size", "large")
    assert ran.code == 2
    assert "expected images with objects, found none among its 6 images" in ran.err


def test_check_compares_the_parts_of_one_data_set(command, tmp_path):
    data = write_small(tmp_path, "images", 4)
    assert command("data", "split", data, tmp_path / "parts", "--val", 0.5).code == 0
    parts = command("data", "check", tmp_path / "parts", "--val", tmp_path / "parts", "--json")
    assert (parts.code, json.loads(parts.out)["images"]) == (0, 2)  # train beside val
    fixed = command("data", "check", data, "--val", data, "--fix", tmp_path / "fixed")
    assert (fixed.code, (tmp_path / "fixed").exists()) == (2, False)
    assert "the repairs leave out all of its images" in fixed.err
    whole = command("data", "check", data, "--val", data, "--json")
    assert whole.code == 1
    assert [found["kind"] for found in json.loads(whole.out)["findings"]] == ["shared-image"] * 4

"""`data split`, `data merge` and `data subset`, from a folder to a folder that every command reads."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from small_data import write_small


def test_a_set_is_divided_and_its_parts_are_read(command, tmp_path):
    data = write_small(tmp_path, "images", 10)
    ran = command("data", "split", data, tmp_path / "parts", "--val", 0.3, "--test", 0.2, "--to", "yolo", "--link")
    assert ran.code == 0, ran.err
    assert [line.partition(":")[0] for line in ran.out.splitlines()[1:]] == ["train", "val", "test"]
    names = []
    for part, count in (("train", 5), ("val", 3), ("test", 2)):
        dataset = read_dataset(tmp_path / "parts", hints=Hints(split=part))
        assert len(dataset) == count
        assert f"{part}: {count} images, {len(dataset.columns['labels'])} objects, 2 classes" in ran.out
        names += [record.path.name for record in dataset.records]
    assert sorted(names) == sorted(f"{i}.png" for i in range(10))


def test_equal_pictures_stay_together(command, tmp_path):
    data = write_small(tmp_path, "images", 8)
    for number in (4, 5, 6, 7):  # the same pictures as 0, 1, 2 and 3, in another compression
        with Image.open(tmp_path / "images" / f"{number - 4}.png") as image:
            image.save(tmp_path / "images" / f"{number}.png", compress_level=0)
    ran = command("data", "split", data, tmp_path / "parts", "--val", 0.5, "--group-copies")
    assert ran.code == 0, ran.err
    assert "4 pictures are equal to another, or nearly so" in ran.err
    train = {int(file.stem) % 4 for file in (tmp_path / "parts" / "train" / "images").iterdir()}
    assert len(train) == 2


def test_sets_of_two_formats_are_merged(command, tmp_path):
    data = write_small(tmp_path, "images", 3)
    content = json.loads(data.read_text())
    assert command("data", "convert", data, tmp_path / "other", "--to", "labelme").code == 0
    ran = command("data", "merge", data, tmp_path / "other", "--out", tmp_path / "both", "--map", "red=warm")
    assert ran.code == 0, ran.err
    assert ran.out == f"6 images in {tmp_path / 'both'}\n"
    dataset = read_dataset(tmp_path / "both", strict=True)
    assert [category.name for category in dataset.categories] == ["blue", "warm"]
    assert {record.path.name for record in dataset.records} == {
        f"{i}{twice}.png" for i in range(3) for twice in ("", "_2")
    }
    assert len(dataset.columns["labels"]) == 2 * len(content["annotations"])
    for first, second in ((0, 3), (1, 4), (2, 5)):
        assert dataset.annotations(first).masks() == dataset.annotations(second).masks()


def test_images_that_lose_their_part_are_counted(command, tmp_path):
    data = write_small(tmp_path, "images", 4)
    assert command("data", "split", data, tmp_path / "parts", "--val", 0.5).code == 0
    ran = command("data", "merge", tmp_path / "parts", data, "--out", tmp_path / "both")
    assert ran.code == 0, ran.err
    assert "lost: 4 images are no longer in their part, because other images are in none" in ran.err
    assert len(read_dataset(tmp_path / "both")) == 8


def test_a_part_of_a_set_is_written(command, tmp_path):
    data = write_small(tmp_path, "images", 8)
    ran = command("data", "subset", data, tmp_path / "red", "--classes", "red", "--no-empty", "--number", 2)
    assert ran.code == 0, ran.err
    dataset = read_dataset(tmp_path / "red")
    assert len(dataset) == 2
    assert [category.name for category in dataset.categories] == ["red"]
    assert dataset.records.counts.min() > 0


def test_merging_says_what_is_probably_not_meant(command, tmp_path):
    data = write_small(tmp_path, "images", 4)
    content = json.loads(data.read_text())
    content["categories"][0]["name"] = "Red"
    content["images"] = content["images"][:3]
    content["images"][0]["file_name"] = "../images/own.png"
    (tmp_path / "images" / "0.png").rename(tmp_path / "images" / "own.png")
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] < 4]
    other = tmp_path / "images" / "other.json"
    other.write_text(json.dumps(content))
    ran = command("data", "merge", data, other, "--out", tmp_path / "both")
    assert (ran.code, ran.out) == (0, f"7 images in {tmp_path / 'both'}\n")
    assert "note: the classes red, Red differ only in spelling and stay apart; --map Red=red makes them one" in ran.err
    assert f"note: 2 image files of {other} are in {data}, too, and become two images each" in ran.err
    ran = command("data", "merge", data, other, "--out", tmp_path / "one", "--map", "Red=red")
    assert "spelling" not in ran.err
    ran = command("data", "merge", data, tmp_path / "images" / ".." / "images.json", "--out", tmp_path / "twice")
    assert (ran.code, ran.out) == (2, "")
    assert "found all 4 image files in" in ran.err


def test_the_usage_of_merge_asks_for_two_data_sets(command):
    usage, _, _ = command("data", "merge", "--help").out.partition("\n")
    assert usage == "usage: maskrcnn data merge [-h] [MERGE OPTIONS] DATA DATA [DATA ...]"


def test_annotations_without_images_are_not_written(command, tmp_path):
    data = write_small(tmp_path, "images", 3)
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    out = tmp_path / "o"
    for words in (("convert", data, out, "--to", "yolo"), ("split", data, out), ("subset", data, out, "--number", 2)):
        ran = command("data", *words)
        assert (ran.code, ran.out, out.exists()) == (2, "", False)
        assert "images.json: expected images to copy, found none among its" in ran.err
        assert ".png: no such file; tried in" in ran.err
        assert "name the folder with --images" in ran.err
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_text("no image")
    ran = command("data", "convert", data, out, "--to", "yolo")
    assert (ran.code, ran.out, out.exists()) == (2, "", False)
    assert "found none among its 3; first: " in ran.err


def test_nothing_is_written_into_the_folder_that_is_read(command, tmp_path):
    data = tmp_path / "data"
    write_small(data, "images", 2)
    before = sorted(data.rglob("*"))
    out = data / "o"
    for words in (
        *(("convert", data, out, "--to", "yolo"), ("split", data, out), ("subset", data, out, "--no-empty")),
        *(("merge", data, data, "--out", out), ("check", data, "--fix", out), ("show", data, "--out", out)),
        ("convert", data / "images.json", data / "images" / "o", "--to", "coco", "--images", data / "images"),
    ):
        ran = command("data", *words)
        assert (ran.code, ran.out) == (2, ""), words
        assert "o: expected a folder outside of " in ran.err, words
    assert sorted(data.rglob("*")) == before
    assert command("data", "convert", data / "images.json", out, "--to", "yolo").code == 0


def test_only_the_first_of_many_things_that_are_left_out_are_printed(command, tmp_path):
    data = write_small(tmp_path, "images", 2)
    content = json.loads(data.read_text())
    content["annotations"] += [{**content["annotations"][0], "id": 100 + i, "image_id": 9} for i in range(12)]
    data.write_text(json.dumps(content))
    ran = command("data", "convert", data, tmp_path / "o", "--to", "yolo")
    lines = [line for line in ran.err.splitlines() if line.startswith("left out: ")]
    assert lines[0] == f"left out: {data}: annotation 100 of image 9: no image has this id"
    assert lines[10:] == ["left out: 2 more, which `maskrcnn data check --json` lists"]


def test_a_report_does_not_overwrite_the_data(command, tmp_path):
    data = write_small(tmp_path, "images", 2)
    before = data.read_text()
    ran = command("data", "check", tmp_path, "--report", data)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: {data}: expected a file to write, found one that is read; choose another path\n"
    assert data.read_text() == before


def test_a_folder_with_files_is_refused_before_the_data_is_read(command, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "old.txt").touch()
    missing = tmp_path / "no.json"
    for words in (("convert", missing, tmp_path / "o", "--to", "coco"), ("split", missing, tmp_path / "o")):
        ran = command("data", *words)
        assert (ran.code, ran.out) == (2, "")
        assert "o: expected no folder or an empty one, found old.txt in it" in ran.err
    out = tmp_path / "o"
    for words in (("subset", missing, out, "--no-empty"), ("merge", missing, missing, "--out", out)):
        assert "o: expected no folder or an empty one, found old.txt in it" in command("data", *words).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("split", "--val", "0"), "--val, --test: expected shares whose sum is above 0"),
        (("split", "--val", "0.5", "--test", "0.5"), "that is below 1, found 0.5 and 0.5"),
        (("split", "--val", "1.5"), "--val: expected a share of the images, from 0 to below 1, found 1.5"),
        (("split", "--test", "-0.1"), "--test: expected a share of the images, from 0 to below 1, found -0.1"),
        (("split", "--val", "nan"), "--val: expected a share of the images, from 0 to below 1, found nan"),
        (("split", "--group-by", "camera"), "images.json: image 1: expected the field camera for --group-by"),
        (("subset", "--classes", "green"), "expected classes among blue, red, found green"),
        (("subset", "--number", "0"), "--number: expected 1 or more images"),
        (("merge", "--map", "red"), "--map: expected pairs old=new, found red"),
        (("merge", "--map", "red=a", "red=b"), "--map: expected one new name for each class, found several for red"),
        (("split", "--val", "20%"), "--val: expected a number, found 20%; see maskrcnn data split --help"),
        (("split", "--seed", "-1"), "--seed: expected a whole number from 0 to 9223372036854775807, found -1"),
        (("subset", "--number", "1", "--seed", "-1"), "--seed: expected a whole number from 0 to "),
        (("subset",), "expected what to keep (--classes, --names, --no-empty or --number), found none of them"),
        (("merge",), "expected two or more data sets to merge, found 1"),
    ],
)
def test_what_cannot_be_done_is_one_line(command, tmp_path, words, said):
    data = write_small(tmp_path, "images", 2)
    verb, *flags = words
    out = ("--out", tmp_path / "o") if verb == "merge" else (tmp_path / "o",)
    ran = command("data", verb, data, *out, *flags)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert not (tmp_path / "o").exists()

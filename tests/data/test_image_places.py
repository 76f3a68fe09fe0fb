"""Where the images of a data set are found, and what is said when they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskrcnn.data.image_places import DEPTH, find_files, find_images


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


LAYOUTS = {
    # layout: the annotation file, a name in it, and the file
    "beside": ("all.json", "a.png", "a.png"),
    "COCO": ("annotations/instances_val2017.json", "a.png", "val2017/a.png"),
    "COCO with images": ("annotations/person_keypoints_val.json", "a.png", "images/val/a.png"),
    "folder of its name": ("my set.json", "a.png", "my set/a.png"),
    "Label Studio": ("result.json", "images/a.png", "images/a.png"),
    "Label Studio, Windows": ("result.json", "images\\a.png", "images/a.png"),
    "Label Studio, only JSON has the hash": ("result.json", "images/0ab1c2d3-a.png", "images/a.png"),
    "Label Studio, only the file has the hash": ("result.json", "a.png", "images/0ab1c2d3-a.png"),
    "Label Studio, upload": ("result.json", "/data/upload/7/0ab1c2d3-a.png", "images/0ab1c2d3-a.png"),
    "Label Studio, local files": ("result.json", "/data/local-files/?d=photos/a%20b.png", "photos/a b.png"),
    "CVAT": ("annotations/instances_default.json", "a.png", "images/a.png"),
    "CVAT with subset": ("annotations/instances_Train.json", "sub/a.png", "images/Train/sub/a.png"),
    "CVAT, subset as folder of the images": ("annotations/instances_default.json", "a.png", "images/default/a.png"),
    "FiftyOne": ("labels.json", "a.png", "data/a.png"),
    "Roboflow": ("train/_annotations.coco.json", "a_png.rf.123.jpg", "train/a_png.rf.123.jpg"),
    "another machine": ("set.json", "/home/somebody/set/images/a.png", "images/a.png"),
    "another machine, Windows": ("set.json", "C:\\Users\\somebody\\photos\\a.png", "photos/a.png"),
    "another machine, flat": ("set.json", "/content/drive/MyDrive/a.png", "images/a.png"),
    "a name with its folder": ("train.json", "train/a.png", "train/a.png"),
    "an address": ("set.json", "https://somewhere.org/photos/a%20b.png?size=big", "images/a b.png"),
    "codes in the name of the file": ("set.json", "a%20b.png", "a%20b.png"),
    "upper case": ("set.json", "a.png", "images/A.PNG"),
    "other Unicode": ("set.json", "e\u0301.png", "images/\u00e9.png"),
    "deeper": ("set.json", "a.png", "one/two/three/a.png"),
    "above annotations": ("annotations/set.json", "a.png", "photos/a.png"),
    "up": ("sets/set.json", "../photos/a.png", "photos/a.png"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_images_are_found_where_tools_put_them(tmp_path: Path, name: str) -> None:
    annotations, written, file = LAYOUTS[name]
    touch(tmp_path, annotations, file, "other/b.png", ".hidden/a.png")
    (place,) = find_images([written], tmp_path / annotations)
    assert place.fault == ""
    assert place.path.resolve() == tmp_path / file


@pytest.mark.parametrize("name", ["../../secret/a.png", "sub/../../../secret/a.png", "../../../etc/passwd", "../.."])
def test_no_relative_name_leads_far_out_of_the_data_set(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "secret/a.png", "sets/one/set.json", "sets/one/b.png")
    (place,) = find_images([name], tmp_path / "sets" / "one" / "set.json")
    assert "no such file" in place.fault


def test_an_absolute_name_is_used_as_it_is_if_it_is_not_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "set/set.json", "set/images/a.png", "photos/a.png", "named/a.png")
    name = str(tmp_path / "photos" / "a.png")
    assert find_images([name], tmp_path / "set" / "set.json")[0].path == tmp_path / "photos" / "a.png"
    chosen = find_images([name], tmp_path / "set" / "set.json", tmp_path / "named")
    assert chosen[0].path == tmp_path / "named" / "a.png"
    touch(tmp_path, "deep/er/set.json", "deep/er/b.png")
    for written in (name, f"{tmp_path}/deep/er/../../photos/a.png"):
        (lost,) = find_images([written], tmp_path / "deep" / "er" / "set.json")
        assert lost.fault.startswith(f"an absolute name is used only inside {tmp_path / 'deep'}; no such file")
        assert find_images([written], tmp_path / "deep" / "er" / "set.json", tmp_path)[0].path == Path(name)


def test_a_folder_that_is_given_is_the_only_place(tmp_path: Path) -> None:
    touch(tmp_path, "set.json", "images/a.png", "b.png", "photos/train/c.png", "photos/val/d.png", "photos/sub/a.png")
    places = find_images(["a.png", "b.png"], tmp_path / "set.json", tmp_path / "photos" / "sub")
    assert [place.path for place in places] == [tmp_path / "photos" / "sub" / name for name in ("a.png", "b.png")]
    assert [bool(place.fault) for place in places] == [False, True]
    below = find_images(["c.png", "x/val/d.png"], tmp_path / "train.json", tmp_path / "photos")
    assert [place.path.parent.name for place in below if not place.fault] == ["val"]
    (tmp_path / "train.json").touch()
    below = find_images(["c.png", "d.png"], tmp_path / "train.json", tmp_path / "photos")
    assert [place.path.parent.name for place in below if not place.fault] == ["train", "val"]


def test_the_only_image_with_another_suffix_is_found(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.json", "images/one.PNG", "images/two.json", "images/four.png", "images/four.jpg", "images/5.1.png"
    )
    one, two, three, four, five = find_files(["One.jpg", "two.jpg", "one.PNG", "four.tif", "5.1"], tmp_path / "a.json")
    assert (one.path, one.fault, one.renamed) == (str(tmp_path / "images" / "one.PNG"), "", True)
    assert two.fault.startswith("no such file; tried in ")
    assert not three.renamed
    assert four.fault.startswith("different files of this name: ")
    assert (five.fault, Path(five.path).name) == ("", "5.1.png")


def test_a_name_that_no_other_has_without_its_folders_is_found_without_them(tmp_path: Path) -> None:
    touch(tmp_path, "set.json", "images/a.png", "images/b.png")
    names = ["../../media/upload/1/0a1b2c3d-a.png", "media/x/b.png", "media/y/b.png"]
    found, *lost = find_images(names, tmp_path / "set.json")
    assert found == (tmp_path / "images" / "a.png", "")
    assert all("no such file" in place.fault for place in lost)


def test_what_is_missing_names_the_places(tmp_path: Path) -> None:
    touch(tmp_path, "set.json", "images/a.png")
    found, missing = find_images(["a.png", "b.png"], tmp_path / "set.json")
    assert found.fault == ""
    assert missing.path == tmp_path / "b.png"
    assert missing.fault == (
        f"no such file; tried in {tmp_path}: set, images/set, ../set, ../images/set, ., images, data, img, imgs, "
        "JPEGImages; name the folder with --images"
    )


@pytest.mark.parametrize(
    "files", [("images/a.png", "data/a.png"), ("one/a.png", "two/a.png"), ("images/A.png", "A.PNG")]
)
def test_two_different_files_are_not_chosen_between(tmp_path: Path, files: tuple[str, ...]) -> None:
    touch(tmp_path, "set.json", *files)
    fault = find_images(["a.png"], tmp_path / "set.json")[0].fault
    assert fault.startswith("different files of this name: ")
    assert all(file in fault for file in files)
    (tmp_path / files[0]).unlink()
    (tmp_path / files[0]).hardlink_to(tmp_path / files[1])
    assert find_images(["a.png"], tmp_path / "set.json")[0].fault == "", "the same file twice"


def test_the_folders_in_a_name_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    touch(tmp_path, "set.json", "x/one/a.png", "x/two/a.png")
    places = find_images(["/other/one/a.png", "/other/two/a.png"], tmp_path / "set.json")
    assert [place.path for place in places] == [tmp_path / "x" / name / "a.png" for name in ("one", "two")]


@pytest.mark.parametrize(
    "elsewhere",
    [("train/a.png",), ("images/train2017/a.png",), ("street.json", "street/a.png"), ("/".join("abcdef") + "/a.png",)],
)
def test_images_of_another_set_are_not_taken(tmp_path: Path, elsewhere: tuple[str, ...]) -> None:
    """A validation set without its images must not be judged on the training images of the same names."""
    assert DEPTH < 6
    touch(tmp_path, "val.json", *elsewhere)
    assert find_images(["a.png"], tmp_path / "val.json")[0].fault.startswith("no such file")


def test_a_single_image_elsewhere_is_not_taken_if_others_are_in_their_place(tmp_path: Path) -> None:
    touch(tmp_path, "set.json", "images/a.png", "thrown away/b.png")
    assert [bool(place.fault) for place in find_images(["a.png", "b.png"], tmp_path / "set.json")] == [False, True]


def test_two_hashes_are_two_images(tmp_path: Path) -> None:
    touch(tmp_path, "result.json", "images/0ab1c2d3-a.png", "images/b.png")
    places = find_images(["images/11111111-a.png", "b.png"], tmp_path / "result.json")
    assert [bool(place.fault) for place in places] == [True, False]


@pytest.mark.parametrize("name", ["", ".", "..", "a/", "\0", "\ud800", "x" * 5000, "%00", "://", "C:\\", "?d="])
def test_odd_names_are_missing(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "set.json", "a/b.png")
    assert find_images([name], tmp_path / "set.json")[0].fault.startswith("no such file")


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"x/{i}.png" for i in range(50)]
    touch(tmp_path, "set.json", *(f"images/{name}" for name in names[1:]))
    listed: list[str] = []

    def listing(path: str) -> list[str]:
        listed.append(os.path.normpath(path))
        with os.scandir(path) as entries:
            return [entry.name for entry in entries]

    monkeypatch.setattr("maskrcnn.data.image_places.os.listdir", listing)
    places = find_images(names, tmp_path / "set.json")
    monkeypatch.undo()
    assert [bool(place.fault) for place in places] == [True] + [False] * 49
    assert len(listed) == len(set(listed))

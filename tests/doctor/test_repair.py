"""The repaired copy of a data set with many faults has none, and what was sound is as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn.data.editing.copies import UNREAD, Pictures
from maskrcnn.data.formats import read_dataset
from maskrcnn.doctor import examine, repaired
from maskrcnn.doctor.copies import shared_photographs
from planted import SIDE, another_image, entry, jpeg, polygon, sound, written


def ill(folder: Path) -> Path:
    content, pictures = sound()
    own = content["annotations"]
    own[0]["bbox"] = [100, 70, 20, 20]
    own[1]["area"] = 9999
    own[2]["iscrowd"] = 1
    x, y = np.reshape(own[3]["segmentation"][0], (-1, 2)).mean(axis=0)
    own[3]["segmentation"].append(polygon(x, y, 5))
    own[5] = entry(6, 3, 2, polygon(124, 50))
    own.append({**own[6], "id": 900})
    own.append(
        {"id": 901, "image_id": 1, "category_id": 2, "bbox": [3, 3, 9, 9], "segmentation": [[300, 3, 309, 3, 309, 9]]}
    )
    own.append({"id": 902, "image_id": 77, "category_id": 2, "bbox": [3, 3, 9, 9]})
    content["categories"].append({"id": 3, "name": "Leaf "})
    own[8]["category_id"] = 3
    path = written(folder, content, pictures)
    another_image(jpeg(40), "copy.jpg")(content, folder / "images")
    (folder / "images" / "6.png").write_bytes(b"no image")
    path.write_text(json.dumps(content))
    return path


def test_the_repaired_data_set_is_sound(tmp_path: Path) -> None:
    before = read_dataset(ill(tmp_path))
    after, done = repaired(examine(before))
    assert sorted(done) == [
        "1 area becomes that of its mask",
        "1 box becomes that of its mask",
        "1 class that differs only in spelling is merged",
        "1 crowd flag of a single object is removed",
        "1 image or annotation was left out by the reader",
        "1 image that cannot be read is left out",
        "1 image that looks like another is left out",
        "1 mask with its box is clipped to its image",
        "1 object outside its image is left out",
        "1 polygon inside another one is cut out as a hole",
        "1 second annotation of an object is left out",
    ]
    again = examine(after)
    assert {found.kind for found in again.findings} <= {"left-out"}  # what the reader said is still said
    assert [category.name for category in after.categories] == ["leaf", "stone"]
    assert again.objects_by_class == [5, 5]
    with_hole = after.annotations(1).rle(1)
    assert 0 < with_hole.area < before.annotations(1).rle(1).area
    for number in (3, 4):  # untouched images
        old, new = before.annotations(number), after.annotations(number)
        assert [mask.counts for mask in new.masks() if mask] == [m.counts for m in old.masks()[: len(new)] if m]
        assert torch.equal(torch.from_numpy(new.annotated_boxes), torch.from_numpy(old.annotated_boxes[: len(new)]))


A, HOLE = (0, 0, 50, 50), (10, 10, 40, 40)
NESTED = {  # x1 y1 x2 y2 of the polygons in the order of drawing, and whether each is cut out
    "a part that overlaps": [(A, False), ((10, 10, 20, 20), True), ((40, 0, 90, 50), False)],
    "a part that covers the hole": [(A, False), ((10, 10, 20, 20), True), ((15, 0, 90, 50), False)],
    "a hole in two parts": [(A, False), ((20, 0, 90, 50), False), ((30, 10, 40, 20), True)],
    "a part twice": [(A, False), (A, False), (HOLE, True)],
    "an island": [(A, False), (HOLE, True), ((20, 20, 30, 30), False)],
    "a hole in an island": [(A, False), (HOLE, True), ((15, 15, 35, 35), False), ((20, 20, 30, 30), True)],
    "a hole that leaves its part": [((0, 0, 110, 50), False), ((5, 10, 111, 40), True)],
    "a part outside the image": [(A, False), (HOLE, True), ((200, 200, 220, 220), False)],
}


@pytest.mark.parametrize("name", NESTED)
def test_only_polygons_inside_others_are_cut_out(tmp_path: Path, name: str) -> None:
    content, pictures = sound()
    expected = np.zeros(SIDE, dtype=bool)
    parts = []
    for (x1, y1, x2, y2), cut in NESTED[name]:
        parts.append([x1, y1, x2, y1, x2, y2, x1, y2])
        expected[y1:y2, x1:x2] = not cut
    content["annotations"][0] |= {"segmentation": parts[::-1], "bbox": [0, 0, 90, 50]}
    del content["annotations"][0]["area"]
    after, done = repaired(examine(read_dataset(written(tmp_path, content, pictures))))
    assert any("cut out as" in what for what in done)
    assert np.array_equal(after.annotations(0).rle(0).dense(), expected)
    assert after.annotations(0).areas[0] == expected.sum()


def test_a_duplicate_of_a_duplicate_is_kept_if_it_is_none_of_the_first(tmp_path: Path) -> None:
    content, pictures = sound()
    boxes = [[x, 70, 100, 20] for x in (5, 7, 9, 11)]  # each is a duplicate of its neighbour, and of no other
    box = {"image_id": 1, "category_id": 1, "iscrowd": 0, "area": 2000}
    content["annotations"] += [{"id": 900 + i, "bbox": own, **box} for i, own in enumerate(boxes)]
    before = examine(read_dataset(written(tmp_path, content, pictures)))
    assert [found.kind for found in before.findings] == ["duplicate-object"] * 3
    after, done = repaired(before)
    assert done == ["2 second annotations of objects are left out"]
    assert [x for x, *_ in after.annotations(0).annotated_boxes.tolist()][2:] == [5, 9]
    assert examine(after).findings == ()


def test_needless_entries_of_a_file_are_left_out(tmp_path: Path) -> None:
    content, pictures = sound()
    images, own = content["images"], content["annotations"]
    images += [{**images[0], "id": number} for number in (91, 92, 93)]
    own += [{**one, "id": 900 + one["id"], "image_id": 92} for one in own[:2]]
    own.append({**own[0], "id": 999, "image_id": 93})
    images.insert(0, {**images[1], "id": 90})
    after, done = repaired(examine(read_dataset(written(tmp_path, content, pictures))))
    assert done == ["3 second entries of image files, empty or with equal annotations, are left out"]
    assert [record.image_id for record in after.records] == [1, 2, 3, 4, 5, 6, 93]


def test_all_versions_of_a_photograph_of_another_split_are_left_out(tmp_path: Path) -> None:
    sides = []
    for seed, numbers in ((0, (1, 2, 4)), (1, (2, 5))):
        content, pictures = sound(seed)
        path = written(tmp_path / str(seed), content, pictures)
        for number in numbers:  # pictures that differ, as after an augmentation
            content["images"][number - 1]["file_name"] = name = f"leaf_jpg.rf.{seed}{number:031x}.png"
            (path.parent / "images" / f"{number}.png").rename(path.parent / "images" / name)
        path.write_text(json.dumps(content))
        sides.append(read_dataset(path))
    train, val = sides
    before = examine(train, val)
    first = val.records[1].path
    assert [(found.kind, found.image, found.other) for found in before.findings] == [
        ("shared-photograph", number, first) for number in (0, 1, 3)
    ]
    after, done = repaired(before)
    assert done == ["3 versions of photographs of another split are left out"]
    assert [record.image_id for record in after.records] == [3, 5, 6]
    assert examine(after, val).findings == ()


def test_of_two_splits_of_one_data_set_the_later_loses_its_versions(tmp_path: Path) -> None:
    """As the later one loses equal pictures. If each rule chose another split, both would lose the photograph."""
    content, pictures = sound()
    dataset = read_dataset(written(tmp_path, content, pictures)).subset([0, 1, 2, 3])
    paths = [Path(f"leaf_jpg.rf.{number:032x}.png") for number in range(4)]
    versions = Pictures(paths, np.array([0, 0, 1, 1]), [UNREAD] * 4)
    left_out = [
        [found.image for found in shared_photographs(whole, versions, ("train", "valid"))]
        for whole in (dataset, dataset.subset([0, 1]))
    ]
    assert left_out == [[2, 3], [0, 1]]


def test_a_sound_data_set_stays_as_it_is(tmp_path: Path) -> None:
    content, pictures = sound()
    before = read_dataset(written(tmp_path, content, pictures))
    after, done = repaired(examine(before))
    assert (done, after.format, len(after)) == ([], before.format, len(before))
    for name in before.columns:
        assert np.array_equal(before.columns[name], after.columns[name], equal_nan=name == "areas")

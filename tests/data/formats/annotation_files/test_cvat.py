"""CVAT XML: every shape, groups, masks as runs, labels, and broken shapes and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import DataError
from small_scene import expected, masks, objects, save_images, scene

SQUARE = "4.0,6.0;14.0,6.0;14.0,20.0;4.0,20.0"
POLYGON = f'<polygon label="a" points="{SQUARE}" z_order="0"/>'


def write(folder: Path, *shapes: str, labels: str = "", second: str = "") -> Path:
    save_images(folder / "images")
    path = folder / "annotations.xml"
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task>{labels}</task></meta>'
        f'<image id="3" name="one.png" width="56" height="40">{"".join(shapes)}</image>'
        f'<image id="5" name="two.png" width="56" height="40">{second}</image></annotations>'
    )
    return path


def mask_of(label: str, mask: np.ndarray) -> str:
    """A mask as CVAT writes it: runs to the right, then down, in the box of the mask, background first."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    box = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    runs, value = [0], False
    for pixel in box.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    height, width = box.shape
    return (
        f'<mask label="{label}" rle="{", ".join(map(str, runs))}" left="{left}" top="{top}" width="{width}" '
        f'height="{height}"/>'
    )


def test_every_shape_with_an_area(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        POLYGON,
        '<box label="box" xtl="4" ytl="6" xbr="14" ybr="20"/>',
        '<box label="turned" xtl="2" ytl="8" xbr="16" ybr="18" rotation="90"/>',
        '<ellipse label="round" cx="30" cy="20" rx="10" ry="5"/>',
        '<ellipse label="round" cx="30" cy="20" rx="5" ry="10" rotation="90"/>',
        '<polyline label="a" points="1,1;9,9"/><points label="a" points="1,1"/><skeleton label="a"/><tag label="a"/>',
        f'<polygon label="background" points="{SQUARE}"/>',
    )
    dataset = read_dataset(path, strict=True)
    assert dataset.format == "CVAT XML"
    square = (140, [4.0, 6.0, 14.0, 20.0])
    found = objects(dataset, 0)
    assert [own for own in found if own[0] != "round"] == [("a", *square), ("turned", *square), ("box", *square)]
    first, second = (own for own in found if own[0] == "round")
    assert first == second
    assert first[2] == [20.0, 15.0, 40.0, 25.0]
    assert [record.image_id for record in dataset.records] == [3, 5]
    assert [record.count for record in dataset.records] == [5, 0]
    assert dataset.annotations(0).has_mask.tolist() == [True, True, True, True, False]
    assert len(dataset.choices) == 5


def test_masks_and_groups(tmp_path: Path) -> None:
    things = scene()["one"]
    path = write(tmp_path, *(mask_of(thing.name, thing.mask) for thing in things))
    assert masks(read_dataset(path, strict=True), 0) == expected("one")
    grouped = [
        mask_of("cell", things[0].mask).replace("<mask", '<mask group_id="1"'),
        POLYGON.replace('label="a"', 'label="cell" group_id="1"'),
    ]
    dataset = read_dataset(write(tmp_path, *grouped), strict=True)
    square = np.zeros((40, 56), dtype=bool)
    square[6:20, 4:14] = True
    assert np.array_equal(dataset.annotations(0).rle(0).dense(), things[0].mask | square)
    assert dataset.records[0].count == 1


def test_labels_of_the_project_are_the_classes(tmp_path: Path) -> None:
    labels = "".join(
        f"<label><name>{name}</name><type>{kind}</type></label>"
        for name, kind in (("b", "polygon"), ("a", "any"), ("path", "polyline"), ("whole", "tag"))
    )
    dataset = read_dataset(write(tmp_path, POLYGON, labels=f"<labels>{labels}</labels>"), strict=True)
    assert [category.name for category in dataset.categories] == ["a", "b"]


def test_names_tell_images_apart_if_tasks_of_a_project_count_anew(tmp_path: Path) -> None:
    path = write(tmp_path, POLYGON, second=POLYGON)
    path.write_text(path.read_text().replace('id="5"', 'id="3"'))
    dataset = read_dataset(path, strict=True)
    assert [(record.image_id, record.count) for record in dataset.records] == [("one.png", 1), ("two.png", 1)]


BROKEN = {
    "two points": (
        '<polygon label="a" points="1,1;2,2"/>',
        "polygon 0: expected a polygon of at least 3 points, found 2",
    ),
    "words": ('<polygon label="a" points="x,y;1,1;2,2"/>', "polygon 0: expected points as pairs of finite numbers"),
    "a short rle": (
        '<mask label="a" rle="1, 2" left="0" top="0" width="2" height="2"/>',
        "mask 0: expected rle of 2 * 2 = 4 pixels, found 3",
    ),
    "negative runs": (
        '<mask label="a" rle="-1, 5" left="0" top="0" width="2" height="2"/>',
        "mask 0: expected rle of 2 * 2",
    ),
    "a huge mask": (
        '<mask label="a" rle="9" left="0" top="0" width="99999" height="99999"/>',
        "mask 0: expected a mask about as large as its image",
    ),
    "no edge": ('<box label="a" xtl="1" ytl="1" xbr="5"/>', "box 0: expected a number in ybr, found None"),
    "not finite": (
        '<ellipse label="a" cx="nan" cy="1" rx="1" ry="1"/>',
        "ellipse 0: expected a number in cx, found 'nan'",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_shape_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    shape, words = BROKEN[fault]
    path = write(tmp_path, shape, POLYGON)
    dataset = read_dataset(path)
    assert objects(dataset) == [("a", 140, [4.0, 6.0, 14.0, 20.0])]
    (problem,) = dataset.problems
    assert problem.startswith(f"{path}: image 3: {words}")
    with pytest.raises(DataError, match="image 3: ") as caught:
        read_dataset(path, strict=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<annotations><image", "not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "found <!DOCTYPE; remove it"),
        ("<annotations/>", "expected elements <image>, found none"),
        ("<annotations><track/></annotations>", "found tracks of a video; export the task as 'CVAT for images'"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error(tmp_path: Path, content: str, words: str) -> None:
    path = write(tmp_path)
    path.write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        read_dataset(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_real_files(shared: Path) -> None:
    folder = shared / "data" / "formats" / "cvat"
    drawn = read_dataset(folder / "made_up_for_images", strict=True)
    assert objects(drawn, 0) == [("label1", 8, [0, 2, 4, 4])]
    assert objects(drawn, 1) == [("object", 1, [3, 3, 4, 4])]
    nuclei = read_dataset(folder / "masks_written_by_datumaro", strict=True)
    assert [record.count for record in nuclei.records] == [6, 15]
    assert objects(nuclei, 1)[:2] == [("nucleus", 198, [185, 43, 198, 62]), ("nucleus", 389, [158, 116, 184, 152])]
    corals = read_dataset(folder / "polygon_7360", strict=True)
    assert [record.count for record in corals.records] == [1, 0, 0, 0, 0]
    assert objects(corals) == [("recruit_live_white", 33562, [2738, 1260, 2943, 1478])]

"""ImageJ: every type of region, archives, names, planes of stacks, images by name, broken files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.formats.annotation_files.imagej import parse_roi
from maskrcnn.errors import DataError
from maskrcnn.ops.polygons import outline
from rois import FREEHAND, LINE, OVAL, POINT, RECTANGLE, path_roi, polygon_roi, roi
from small_scene import expected, masks, objects, save_images, scene

SQUARE = [(4, 6), (14, 6), (14, 20), (4, 20)]
BOX = (4, 6, 14, 20)
WHOLE = (140, [4.0, 6.0, 14.0, 20.0])


def archive(path: Path, **regions: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in regions.items():
            file.writestr(f"{name}.roi", content)
    return path


def path_of(rings: list[np.ndarray]) -> list[float]:
    numbers: list[float] = []
    for ring in rings:
        for number, (x, y) in enumerate(ring.tolist()):
            numbers += [min(number, 1), x, y]
        numbers.append(4)
    return numbers


def test_composites_hold_parts_and_holes(tmp_path: Path) -> None:
    save_images(tmp_path)
    things = {f"{n} {thing.name}": thing for n, thing in enumerate(scene()["one"])}
    archive(
        tmp_path / "one.zip",
        **{own: path_roi(path_of(outline(thing.mask)), name=thing.name) for own, thing in things.items()},
    )
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "ImageJ ROIs"
    assert masks(dataset, "one") == expected("one")


def test_every_type(tmp_path: Path) -> None:
    save_images(tmp_path)
    subpixel = roi(FREEHAND, BOX, bytes(12) + np.array([4, 14, 14, 6, 6, 20], ">f4").tobytes(), count=3, options=128)
    regions = {
        "polygon": polygon_roi(SQUARE),
        "traced": polygon_roi(SQUARE, kind=8),
        "rectangle": roi(RECTANGLE, BOX),
        "fractions": roi(RECTANGLE, (0, 0, 1, 1), floats=(4, 6, 10, 14), options=128),
        "oval": roi(OVAL, (20, 15, 40, 25)),
        "triangle": subpixel,
        "curve": path_roi([0, 4, 6, 1, 14, 6, 1, 14, 20, 2, 9, 20, 4, 20, 3, 4, 15, 4, 10, 4, 6, 4]),
        "line": roi(LINE, BOX),
        "point": roi(POINT, BOX, bytes(4), count=1),
        "text": roi(RECTANGLE, BOX, subtype=1),
    }
    dataset = read_dataset(archive(tmp_path / "one.zip", **regions), strict=True)
    found = {own[0]: own[1:] for own in objects(dataset)}
    assert [found[name] for name in ("polygon", "traced", "rectangle", "fractions", "curve")] == [WHOLE] * 5
    assert found["oval"][1] == [20.0, 15.0, 40.0, 25.0]
    assert found["oval"][0] == pytest.approx(np.pi * 50, rel=0.02)
    assert found["triangle"] == (69, [4.0, 6.0, 14.0, 19.0])
    assert len(found) == 7
    assert len(dataset.choices) == 3


def test_names_are_classes_unless_they_are_numbers(tmp_path: Path) -> None:
    save_images(tmp_path)
    names = ("0013-0009", "nucleus", "nucleus-1", "Cell_12", "")
    regions = {f"own {n}": polygon_roi(SQUARE, name=name) for n, name in enumerate(names)}
    dataset = read_dataset(archive(tmp_path / "one.zip", **regions), strict=True)
    assert [own[0] for own in objects(dataset)] == ["object", "nucleus", "nucleus", "Cell", "own"]
    many = {f"n{chr(65 + n % 26)}{chr(97 + n // 26)}": polygon_roi(SQUARE) for n in range(101)}
    dataset = read_dataset(archive(tmp_path / "one.zip", **many), strict=True)
    assert [category.name for category in dataset.categories] == ["object"]


def test_regions_may_lie_in_a_folder_beside_the_images(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    (tmp_path / "rois").mkdir()
    archive(tmp_path / "rois" / "two.zip", a=polygon_roi(SQUARE))
    dataset = read_dataset(tmp_path, strict=True)
    assert [record.path for record in dataset.records] == [tmp_path / "images" / "two.png"]


@pytest.mark.parametrize(
    ("file", "image"),
    [("two.zip", "two"), ("two_RoiSet.zip", "two"), ("RoiSet-two.zip", "two"), ("two_rois.zip", "two")],
)
def test_an_archive_belongs_to_the_image_of_its_name(tmp_path: Path, file: str, image: str) -> None:
    save_images(tmp_path)
    archive(tmp_path / file, a=polygon_roi(SQUARE))
    assert read_dataset(tmp_path, strict=True).records[0].path == tmp_path / f"{image}.png"


def test_files_without_an_image_of_their_own_belong_to_the_only_one(tmp_path: Path) -> None:
    save_images(tmp_path, ("cells",))
    archive(tmp_path / "RoiSet.zip", a=polygon_roi(SQUARE))
    (tmp_path / "b.roi").write_bytes(polygon_roi(SQUARE))
    dataset = read_dataset(tmp_path, strict=True)
    assert [(record.image_id, record.count) for record in dataset.records] == [("cells.png", 2)]
    assert "the only image there" in dataset.choices[0]
    (tmp_path / "cells.png").unlink()
    dataset = read_dataset(tmp_path, strict=True)
    assert [(r.image_id, r.count, r.height, r.width) for r in dataset.records] == [
        ("b", 1, 20, 14),
        ("RoiSet", 1, 20, 14),
    ]


def test_one_plane_of_a_stack_is_read(tmp_path: Path) -> None:
    save_images(tmp_path)
    regions = {f"r{plane}": polygon_roi(SQUARE, position=plane) for plane in (3, 2, 0, 2)}
    regions["again"] = polygon_roi(SQUARE, position=2)
    dataset = read_dataset(archive(tmp_path / "one.zip", **regions), strict=True)
    assert dataset.records[0].count == 3
    assert "image one: 1 region in other planes is left out" in dataset.choices[0]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(-4000, 32000), st.integers(-4000, 32000)), min_size=3, max_size=40))
def test_the_corners_of_a_polygon(points: list[tuple[int, int]]) -> None:
    found = parse_roi(polygon_roi(points, name="été-1"), "")
    assert found.name == "été-1"
    assert found.rings[0].tolist() == [list(map(float, point)) for point in points]


BROKEN = {
    "empty": (b"", "expected a region of ImageJ, found b''"),
    "cut off": (polygon_roi(SQUARE)[:-3], "expected 8 numbers from byte 64 on, found 77 bytes; it may be cut off"),
    "another type": (roi(77, BOX), "expected a type below 11, found 77"),
    "many points": (roi(0, BOX, count=0, floats=(9e9, 0, 0, 0)), "numbers from byte 64 on, found 64 bytes"),
    "no number": (path_roi([0, np.nan, 1, 1, 2, 2, 1, 3, 9]), "expected finite coordinates, found others"),
    "no path": (path_roi([7, 1, 2]), "expected a path of moves, lines and curves, found 7.0 at its place 0"),
    "a path that is cut off": (path_roi([0, 1, 2, 3, 9]), "expected a path of moves, lines and curves, found 3.0"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_region_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    broken, words = BROKEN[fault]
    save_images(tmp_path)
    path = archive(tmp_path / "one.zip", bad=broken, good=polygon_roi(SQUARE))
    dataset = read_dataset(path)
    assert objects(dataset) == [("good", *WHOLE)]
    assert dataset.problems[0].startswith(f"{path}: one.zip: bad.roi: ")
    assert words in dataset.problems[0]
    with pytest.raises(DataError, match=r"bad\.roi: ") as caught:
        read_dataset(path, strict=True)
    assert "\n" not in str(caught.value)


def test_a_broken_archive_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    save_images(tmp_path)
    archive(tmp_path / "one.zip", a=polygon_roi(SQUARE))
    content = archive(tmp_path / "two.zip", a=polygon_roi(SQUARE)).read_bytes()
    archive(tmp_path / "bomb.zip", a=bytes(1 << 20))
    (tmp_path / "two.zip").write_bytes(content[: len(content) // 2])
    dataset = read_dataset(tmp_path)
    assert [record.image_id for record in dataset.records] == ["one"]
    assert any("bomb.zip: " in p and "expands to more than 200 times its size" in p for p in dataset.problems)
    assert any("two.zip: expected regions of ImageJ, found a file that cannot be read" in p for p in dataset.problems)


def test_real_files(shared: Path) -> None:
    folder = shared / "data" / "formats" / "imagej_roi"
    edges = {
        "polygon": ([65, 49, 174, 138], 7163),
        "rectangle": ([43, 19, 86, 55], 1548),
        "oval": ([97, 58, 131, 95], 988.03),
        "freehand": ([96, 11, 181, 66], 2063.5),  # the outline begins at 95
    }
    together = read_dataset(folder / "RoiSet.zip", strict=True)
    assert [own[0] for own in objects(together)] == list(edges)
    single = read_dataset(folder, strict=True)
    assert [record.count for record in single.records] == [1] * 7 + [4]
    for label, pixels, box in objects(together):
        assert box == edges[label][0]
        assert pixels == pytest.approx(edges[label][1], rel=0.01)
        assert objects(single, label) == [(label, pixels, box)]
    assert objects(single, "composite-rect-in-rect")[0][1] == 2562 - 558
    assert objects(single, "composite-oval-in-rect")[0][1:] == (1222 - 284, [49, 31, 96, 57])
    assert objects(single, "ellipse")[0][1] == pytest.approx(24.6, abs=2)

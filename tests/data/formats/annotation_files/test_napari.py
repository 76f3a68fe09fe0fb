"""napari's CSV of shapes: every shape, planes, images by name, and broken shapes and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import DataError
from small_scene import objects, save_images

HEADER = "index,shape-type,vertex-index,axis-0,axis-1\n"
SQUARE = [(5.5, 3.5), (5.5, 13.5), (19.5, 13.5), (19.5, 3.5)]  # y, x of pixel centres
WHOLE = ("object", 140, [4.0, 6.0, 14.0, 20.0])


def rows(kind: str, corners: list[tuple[float, ...]], index: int = 0) -> str:
    return "".join(f"{index},{kind},{n},{','.join(map(str, corner))}\n" for n, corner in enumerate(corners))


def write(folder: Path, *shapes: str, header: str = HEADER) -> Path:
    save_images(folder)
    path = folder / "one.csv"
    path.write_text(header + "".join(shapes))
    return path


def test_every_shape(tmp_path: Path) -> None:
    box = [(14.5, 19.5), (14.5, 39.5), (24.5, 39.5), (24.5, 19.5)]
    diamond = [(9.5, 29.5), (19.5, 39.5), (29.5, 29.5), (19.5, 19.5)]  # the box of a turned circle
    path = write(
        tmp_path,
        rows("polygon", SQUARE),
        rows("rectangle", SQUARE[::-1], 1),
        rows("ellipse", box, 2),
        rows("ellipse", diamond, 3),
        rows("path", SQUARE, 4),
        rows("line", SQUARE[:2], 5),
    )
    dataset = read_dataset(path, strict=True)
    assert dataset.format == "napari shapes"
    found = objects(dataset)
    assert found[:2] == [WHOLE] * 2
    assert found[2][2] == [20.0, 15.0, 40.0, 25.0]
    assert found[2][1] == pytest.approx(np.pi * 50, rel=0.02)
    assert found[3][1] == pytest.approx(np.pi * 50, rel=0.02)
    assert found[3][2] == [23.0, 13.0, 37.0, 27.0]
    assert dataset.records[0].path == tmp_path / "one.png"
    assert len(dataset.choices) == 2


def test_the_first_plane_of_a_volume_is_read(tmp_path: Path) -> None:
    header = HEADER.replace("axis-0,axis-1", "axis-0,axis-1,axis-2")
    planes = [rows("polygon", [(plane, *corner) for corner in SQUARE], n) for n, plane in enumerate((2.0, 2.0, 3.0))]
    dataset = read_dataset(write(tmp_path, *planes, header=header), strict=True)
    assert objects(dataset) == [WHOLE] * 2
    assert "1 shape in another plane than the first is left out" in dataset.choices[0]


BROKEN = {
    "words": (rows("polygon", [(1, 2)] * 3).replace("1,2", "one,2", 1), "expected points as pairs of finite numbers"),
    "three corners": (rows("ellipse", SQUARE[:3]), "expected 4 points, found 3"),
    "two corners": (rows("polygon", SQUARE[:2]), "expected a polygon of at least 3 points, found 2"),
    "another shape": (rows("blob", SQUARE), "expected a known shape-type, found 'blob'"),
    "a short row": ("0,polygon,0\n", "expected points as pairs of finite numbers"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_shape_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    broken, words = BROKEN[fault]
    path = write(tmp_path, broken, rows("polygon", SQUARE, 7))
    dataset = read_dataset(path)
    assert objects(dataset) == [WHOLE]
    assert dataset.problems[0].startswith(f"{path}: one.csv: line 2: {words}")
    with pytest.raises(DataError, match="line 2: "):
        read_dataset(path, strict=True)


def test_a_broken_file_does_not_stop_the_rest(tmp_path: Path) -> None:
    write(tmp_path, rows("polygon", SQUARE)).with_name("two.csv").write_bytes(HEADER.encode() + b"\xff\xfe,polygon")
    dataset = read_dataset(tmp_path)
    assert [record.image_id for record in dataset.records] == ["one"]
    assert "two.csv: expected a CSV in UTF-8" in dataset.problems[0]


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "napari_shapes", strict=True)
    assert objects(dataset) == [("object", 94792, [107, 3, 411, 459])]

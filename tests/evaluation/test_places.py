"""Results find their images by id, or by file name where the ids are those of another numbering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.errors import DataError
from maskrcnn.evaluation.places import place_results
from maskrcnn.structures.dataset import Dataset

FLAT = {1: "a.png", 2: "b.png", 3: "c.png"}
FOLDERS = {1: "left/a.png", 2: "right/a.png", 3: "right/b.png"}


def dataset(names: dict[Any, str]) -> Dataset:
    content = {
        "images": [{"id": i, "file_name": name, "height": 4, "width": 4} for i, name in names.items()],
        "annotations": [],
        "categories": [{"id": 1, "name": "cell"}],
    }
    return coco.from_content(content, Path("cells.json"), Path("cells"))


def results(*names: tuple[Any, Any]) -> list[dict[str, Any]]:
    """One result for each image_id and file_name; without a file_name where it is None."""
    return [{"image_id": i} if name is None else {"image_id": i, "file_name": name} for i, name in names]


@pytest.mark.parametrize(
    ("images", "names", "expected"),
    [
        (FLAT, [(2, None), (1, None), (2, None)], [2, 1, 2]),
        (FLAT, [(1, "photos/a.png"), (3, "photos/c.png")], [1, 3]),
        (FLAT, [(1, r"C:\\photos\\a.png"), (3, None)], [1, 3]),
        (FLAT, [(1, "c.png"), (2, "b.png"), (3, "a.png")], [3, 2, 1]),
        (FLAT, [(1, "a.png"), (7, "b.png")], [1, 2]),
        (FLAT, [(2, "x/a.png"), (3, "x/b.png")], [1, 2]),
        ({"1": "a.png", "2": "b.png"}, [(2, "b.png"), (1, "a.png")], ["2", "1"]),
        (FOLDERS, [(1, "/data/left/a.png"), (2, "/data/right/a.png")], [1, 2]),
        (FOLDERS, [(2, "/data/left/a.png"), (1, "/data/right/a.png")], [1, 2]),
        (FOLDERS, [(1, "a.png"), (2, "a.png")], [1, 2]),
        ({1: "a.png", 2: "right/a.png"}, [(2, "photos/a.png")], [1]),
    ],
)
def test_the_image_of_each_result(images: dict[Any, str], names: list[tuple[Any, Any]], expected: list[Any]) -> None:
    places, note = place_results(results(*names), dataset(images))
    assert places == expected
    assert (note is None) == (places == [image_id for image_id, _ in names])


@pytest.mark.parametrize(
    ("images", "names", "message"),
    [
        (FLAT, [(1, None), (9, None)], r"entry 1: image_id 9 is not the id of an image in cells\.json; write its ids"),
        (FLAT, [(1, "a.png"), (9, None)], r"entry 1: image_id 9 is not the id of an image in cells\.json; write its"),
        (FLAT, [(1, None), (2, "c.png")], r"entry 0: expected a file_name too, because the image ids of other results"),
        (FLAT, [(1, "a.png"), (2, "z.png")], r"entry 1: image_id 2 and file_name 'z.png' do not belong together"),
        (FLAT, [(1, "a.jpg")], r"entry 0: .* the file_name is not the name of an image there; predict with --data"),
        (FOLDERS, [(1, "x/a.png"), (2, "y/a.png")], r"entry 0: .* the file_name fits 2 images, with the ids \[1, 2\]"),
        (FOLDERS, [(3, "a.png")], r"entry 0: .* the file_name fits 2 images"),
        (FLAT, [(1, "train/a.png"), (2, "val/a.png")], r"entry 1: expected the results of one image for image 1"),
        (FLAT, [(1, "train/a.png"), (1, "val/a.png")], r"entry 1: expected the results of one image for image 1"),
        (FLAT, [(1, "\ud800.png")], r"entry 0: .*file_name '\\ud800\.png' do not belong together"),
        (FLAT, [(1, "")], r"entry 0: .* file_name '' do not belong together"),
        (FLAT, [(1, 5)], r"entry 0: expected file_name as a text, found 5"),
        (FLAT, [(1.5, None)], r"entry 0: image_id 1\.5 is not the id of an image"),
        (FLAT, [(2**70, None)], r"entry 0: image_id 1180591620717411303424 is not the id"),
    ],
)
def test_what_cannot_be_placed_is_refused(images: dict[Any, str], names: list[tuple[Any, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        place_results(results(*names), dataset(images))
    str(caught.value).encode("utf-8")  # can be printed

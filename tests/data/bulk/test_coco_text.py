"""Reading the text of a COCO JSON into columns gives the same data set and messages as reading its parsed content."""

from __future__ import annotations

import copy
import gzip
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.data.bulk import coco_text
from maskrcnn.data.bulk.coco_text import open_text, read_annotations
from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import read_json
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.records import as_numpy

SQUARE = [10.5, 5, 18, 5, 18, 13.25, 10, 13]
RUNS = RLE.from_coco({"size": [40, 50], "counts": [90, 10, 1900]}).to_coco()


def content() -> dict[str, Any]:
    """Two images with a polygon, two polygons, run lengths, a crowd region, a box, and no bbox."""
    base = {"image_id": 1, "category_id": 3, "bbox": [10, 5, 8, 8.25], "iscrowd": 0}
    masks: list[Any] = [[SQUARE], [SQUARE, [1, 1, 2, 1.5, 1, 9]], RUNS, RUNS, None, [SQUARE], [SQUARE]]
    annotations = [{**base, "id": number, "segmentation": mask} for number, mask in enumerate(masks, start=11)]
    annotations[3] |= {"iscrowd": 1, "area": 4}
    annotations[4] |= {"image_id": 2, "score": 0.5, "attributes": {"note": "a\\b é"}}
    annotations[5] |= {"image_id": 2, "area": 7.5}
    del annotations[6]["bbox"]
    return {
        "info": {"year": 2026},
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 50, "light": "day"} for i in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cell"}, {"id": 4, "name": "hand", "keypoints": ["tip"]}],
    }


def said(read: Callable[[], Dataset]) -> Any:
    """All that a data set holds, or the error."""
    try:
        found = read()
    except DataError as error:
        return str(error)
    columns = {name: (as_numpy(column).dtype.str, as_numpy(column).tolist()) for name, column in found.columns.items()}
    masks = [found.segmentations[i].tobytes() for i in range(len(columns["ids"][1]))]
    said = (found.problems, found.notes, found.choices)
    return repr((list(found.records), found.categories, columns, masks)), said


def require_equal(text: bytes, folder: Path) -> None:
    path = folder / "annotations.json"
    path.write_bytes(text)
    for strict in (False, True):
        parsed = said(lambda s=strict: coco.from_content(read_json(path, "a COCO JSON"), path, strict=s))  # type: ignore[misc]
        assert said(lambda s=strict: coco.read(path, strict=s)) == parsed  # type: ignore[misc]


NO_PIXEL = RLE.from_coco({"size": [40, 50], "counts": [2000]}).to_coco()
VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 4, 11, 11.0, 12.5, "11", "3", 1 << 62, -(1 << 63), 1 << 70, 1e300, math.nan),
    *("", "é", "\ud800", [], {}, [[]], [[SQUARE[:4]], SQUARE], SQUARE, [SQUARE[:5]], [SQUARE, [0, 0]], [[5] * 6]),
    *([[1, 1, 2, 2, 3, 3]], [[[1, 1], [4, 1], [4, 4]]], [[*SQUARE[:7], None]], [[*SQUARE[:7], "8"]], [[1e300] * 6]),
    *(
        [[1, 1, 1 << 70, 1, 5, 5]],
        [[-0.0, 0, 10, 0, 10, 10]],
        [[0.1, 0, 0.30000000000000004, 1e-7, 5, 5]],
        [[0, 0, 2e9, 0, 2e9, 9]],
    ),
    *(RUNS, {**RUNS, "size": [50, 40]}, {**RUNS, "counts": "é"}, {**RUNS, "counts": [2000]}, {"size": [40, 50]}),
    *(
        {**RUNS, "counts": "PP"},
        NO_PIXEL,
        [10, 5, 8, 0],
        [10, 5, -3, 4],
        [60, 5, 8, 8],
        [10, 5, 8],
        [5, 5, 8, math.inf],
    ),
    *([1e308, 1, 1e308, 1], [5, 5, 2e9, 9], [[0, 0, 2e9, 0, 2e9, 9]]),
]
KEYS = ["image_id", "category_id", "id", "bbox", "segmentation", "iscrowd", "area", "keypoints", "other"]


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=4),
    st.lists(st.sampled_from(["images", "categories", "annotations"]), max_size=1),
    st.booleans(),
)
def test_any_value_in_any_place(changes: list[tuple[int, str, Any]], swapped: list[str], ascii: bool) -> None:
    given = content()
    for number, key, value in changes:
        given["annotations"][number][key] = copy.deepcopy(value)
    for key in swapped:
        given[key] = [None, *given[key], 5, given[key][0]]
    text = json.dumps(given, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory() as folder:
        require_equal(text, Path(folder))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5000), st.binary(max_size=3), st.integers(0, 3))
def test_any_change_of_the_text(place: int, put: bytes, removed: int) -> None:
    text = json.dumps(content(), indent=1).encode()
    place %= len(text)
    with tempfile.TemporaryDirectory() as folder:
        require_equal(text[:place] + put + text[place + removed :], Path(folder))


@pytest.mark.parametrize("given", ["whole", "gzip", "bom", "utf-16", "nan", "deep", "digits", "empty", "a list"])
def test_any_form_of_the_file(given: str, tmp_path: Path) -> None:
    text = json.dumps(content()).encode()
    forms = {
        "whole": text,
        "gzip": gzip.compress(text),
        "bom": b"\xef\xbb\xbf" + text,
        "utf-16": text.decode().encode("utf-16"),
        "nan": text.replace(b'"year": 2026', b'"year": NaN'),
        "deep": text.replace(b'"score": 0.5', b'"score": ' + b"[" * 5000 + b"]" * 5000),
        "digits": text.replace(b'"area": 7.5', b'"area": ' + b"1" * 5000),
        "empty": b"",
        "a list": b"[" + text + b"]",
    }
    require_equal(forms[given], tmp_path)


def test_only_the_unusual_is_parsed(tmp_path: Path) -> None:
    given = content()
    given["annotations"][5]["id"] = given["annotations"][0]["id"]  # both are judged by the general rules
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(given))
    text = open_text(path)
    assert text is not None
    builder = coco.DatasetBuilder(path)
    coco._add_categories(builder, text.categories, set)
    coco._add_images(builder, text.images, None)
    plain, others = read_annotations(text, builder.known(), builder.buffer)
    assert plain.ids.tolist() == [12, 13, 14, 15]
    assert sorted(others) == [1, 6, 7], "the repeated id, and the missing box"


def test_many_annotations_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_text, "_AT_ONCE", 32)
    given = content()
    kinds = given["annotations"]
    given["annotations"] = [{**kinds[i % 7], "id": i if i % 50 else 5} for i in range(300)]
    require_equal(json.dumps(given, indent=60).encode(), tmp_path)  # more than a page of memory in each block

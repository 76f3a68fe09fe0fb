"""HuBMAP: a line of polygons for each image, objects that experts were unsure of, and broken lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import objects, save_images

SQUARE = [[2, 3], [12, 3], [12, 13], [2, 13]]
HOLE = [[4, 5], [8, 5], [8, 9], [4, 9]]


def line(own: str, *entries: tuple[str, list[list[list[int]]]]) -> str:
    return json.dumps({"id": own, "annotations": [{"type": kind, "coordinates": rings} for kind, rings in entries]})


def test_the_reason_is_given_if_no_line_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "polygons.jsonl"
    path.write_text('{"id": [5], "annotations": []}\n')
    with pytest.raises(DataError, match=r"found none that can be used; first: line 1: "):
        read_dataset(path, hints=Hints(format="hubmap"))


def test_every_line_is_an_image(tmp_path: Path) -> None:
    save_images(tmp_path / "train", ("0a", "0b", "0c", "0d"), ".tif")
    (tmp_path / "tile_meta.csv").write_text("id,source_wsi,dataset,i,j\n0a,1,1,2,3\n")
    lines = [
        line("0a", ("blood_vessel", [SQUARE]), ("glomerulus", [SQUARE, HOLE]), ("unsure", [HOLE])),
        line("0b"),
        '{"id": "0c", "annotations": [{"type":',
        line("0c", ("blood_vessel", [[[1, 2], [3]]]), ("blood_vessel", [HOLE])),
    ]
    path = tmp_path / "polygons.jsonl"
    path.write_text("\n".join(lines) + "\n")
    for place in (tmp_path, path):
        dataset = read_dataset(place)
        assert dataset.format == "HuBMAP polygons"
        assert [record.image_id for record in dataset.records] == ["0a", "0b", "0c"]
        assert objects(dataset, "0a") == [
            ("blood_vessel", 100, [2, 3, 12, 13]),
            ("glomerulus", 84, [2, 3, 12, 13]),
            ("blood_vessel", 16, [4, 5, 8, 9]),
        ]
        assert dataset.annotations(0).crowd.tolist() == [False, False, True]
        assert dataset.records[1].count == 0
        assert objects(dataset, "0c") == [("blood_vessel", 16, [4, 5, 8, 9])]
        not_json, points = dataset.problems
        assert "line 3: not JSON" in not_json
        assert "line 4: annotations[0]: expected points as pairs of finite numbers" in points
        assert "1 objects of which experts were unsure become crowd regions" in dataset.choices[0]
        assert "1 image without annotations is left out, first: 0d.tif" in dataset.choices[1]
    assert len(read_dataset(path, hints=Hints(missing="empty"))) == 4

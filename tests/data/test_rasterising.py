"""Polygons, run lengths and tables of run lengths are the same pixels as pycocotools draws, in 10,000 random cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_api

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.structures.dataset import Dataset

CASES = {"polygons": 5000, "runs": 3000, "rows": 2000}
AN_IMAGE = 50  # cases


def random_points(rng: np.random.Generator, size_wh: np.ndarray) -> np.ndarray:
    """(n, 2) points: a few or many, spread or in a speck, inside or far outside, also whole, half and repeated ones."""
    count = int(rng.choice([3, 4, 5, 8, 30]))
    centre = rng.uniform(-0.3, 1.3, 2) * size_wh
    points = centre + rng.normal(size=(count, 2)) * rng.choice([0.01, 0.3, 2.0, 10.0, 100.0])
    points = np.round(points * (step := rng.choice([1.0, 2.0, 5.0, 1e4]))) / step
    points[rng.random(count) < rng.choice([0, 0.3])] = points[0]
    points[:, rng.integers(2)] = np.where(rng.random() < 0.1, points[0, 0], points[:, 0])  # sometimes a line
    return points.clip(-1000, 1000)


def random_bitmap(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    blocks = rng.random((height, width)) < rng.choice([0.0, 0.02, 0.5, 0.98, 1.0])
    bitmap = np.kron(blocks, np.ones((3, 3), dtype=bool))[:height, :width]
    bitmap[tuple(rng.integers([height, width]))] = True  # a mask without a pixel is repaired or rejected
    return bitmap


def encoded(bitmap: np.ndarray) -> bytes:
    return bytes(coco_api.encode(np.asfortranarray(bitmap.astype(np.uint8)))["counts"])


def segmentation(rng: np.random.Generator, kind: str, height: int, width: int) -> Any:
    if kind == "polygons":
        size_wh = np.array([width, height])
        return [random_points(rng, size_wh).ravel().tolist() for _ in range(rng.choice([1, 1, 1, 3]))]
    bitmap = random_bitmap(rng, height, width)
    if rng.random() < 0.5:
        return {"size": [height, width], "counts": encoded(bitmap).decode()}
    flat = np.concatenate([[False], bitmap.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [height * width]]))
    return {"size": [height, width], "counts": counts[: len(counts) - (counts[-1] == 0)].tolist()}


def drawn(segmentation: Any, height: int, width: int) -> bytes:
    """What pycocotools draws, as its compressed run lengths."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return bytes(segmentation["counts"].encode())
    found = coco_api.frPyObjects(segmentation, height, width)
    return bytes((coco_api.merge(found) if isinstance(found, list) else found)["counts"])


def masks(dataset: Dataset) -> dict[Any, bytes]:
    """The run lengths of each annotation by its id."""
    return {
        own: mask.counts
        for annotations in map(dataset.annotations, range(len(dataset)))
        for own, mask in zip(annotations.ids.tolist(), annotations.masks(), strict=True)
        if mask is not None
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["polygons", "runs"])
def test_segmentations_of_coco(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2026)
    sizes = rng.integers(1, 60, (CASES[kind] // AN_IMAGE, 2)).tolist()
    given = {
        number * AN_IMAGE + i: (number, segmentation(rng, kind, *size))
        for number, size in enumerate(sizes)
        for i in range(AN_IMAGE)
    }
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(sizes)],
        "annotations": [
            {"id": own, "image_id": image, "category_id": 1, "segmentation": one, "bbox": [0, 0, 1, 1]}
            for own, (image, one) in given.items()
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    found = masks(read_dataset(tmp_path / "all.json"))
    assert found == {own: drawn(one, *sizes[image]) for own, (image, one) in given.items()}


@pytest.mark.slow
@pytest.mark.parametrize("order", ["down", "right"])
def test_rows_of_a_table(order: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2026)
    rows, expected = ["ImageId,EncodedPixels"], []
    for image in range(CASES["rows"] // 2 // AN_IMAGE):
        height, width = rng.integers(2, 60, 2).tolist()
        Image.new("L", (width, height)).save(tmp_path / f"{image:03}.png")
        for _ in range(AN_IMAGE):
            bitmap = random_bitmap(rng, height, width)
            flat = np.concatenate([[False], bitmap.ravel(order="F" if order == "down" else "C"), [False]])
            starts, ends = np.flatnonzero(flat[1:] != flat[:-1]).reshape(-1, 2).T
            runs = np.stack([starts + 1, ends - starts], axis=1).ravel()
            rows.append(f"{image:03}.png,{' '.join(map(str, runs.tolist()))}")
            expected.append(encoded(bitmap))
    (tmp_path / "train.csv").write_text("\n".join(rows))
    dataset = read_dataset(tmp_path / "train.csv", hints=Hints(order=order))  # type: ignore[arg-type]
    assert [mask for _, mask in sorted(masks(dataset).items())] == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco", "nuclei", "person"])
def test_all_annotations_of_real_sets(name: str, shared: Path) -> None:
    for file in sorted((shared / "data" / name).rglob("*.json")):
        content = json.loads(file.read_bytes())
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        found = masks(read_dataset(file))
        assert len(found) > 100
        for entry in content["annotations"]:
            if entry["id"] in found:
                assert found[entry["id"]] == drawn(entry["segmentation"], *sizes[entry["image_id"]]), entry["id"]

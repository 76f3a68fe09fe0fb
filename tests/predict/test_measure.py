"""Measurements equal scikit-image's, by name."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.measure import regionprops_table

from maskrcnn.errors import ConfigError
from maskrcnn.files.images import read_image
from maskrcnn.predict import Outputs, Predictor, Table, predict_files
from maskrcnn.predict.measure import COLUMNS, MEASURES, measure
from maskrcnn.structures.masks import RLE
from small_data import random_predictor, write_small


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return random_predictor()


def by_scikit_image(mask: np.ndarray, image: np.ndarray, pixel_size: float) -> dict[str, float]:
    names = sorted({name.partition("-")[0] for name in MEASURES})
    found = regionprops_table(mask.astype(np.uint8), image, properties=names, spacing=(pixel_size, pixel_size))
    return {name: float(values[0]) for name, values in found.items()}


@given(st.integers(1, 14), st.integers(1, 14), st.integers(0, 2**32), st.floats(0.2, 1.0), st.sampled_from([1.0, 0.25]))
def test_any_mask(height: int, width: int, seed: int, share: float, pixel_size: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    mask[rng.integers(height), rng.integers(width)] = True
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = by_scikit_image(mask, image, pixel_size)
    found = dict(zip(MEASURES, measure(RLE.from_dense(mask), image, pixel_size), strict=True))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6 if name != "eccentricity" else 1e-4), name


def test_an_empty_mask_has_no_place() -> None:
    found = measure(RLE.from_dense(np.zeros((3, 4), bool)), np.zeros((3, 4, 3), np.uint8))
    assert found == [0, 0, *[None] * 8]


def test_a_table_has_a_row_for_each_object_that_is_shown(predictor: Predictor, tmp_path: Path) -> None:
    write_small(tmp_path, "images", 3)
    files = sorted((tmp_path / "images").glob("*.png"))
    found = predictor.predict(files)
    least = float(np.median(np.concatenate([instances.scores for instances in found])))
    table = Table(tmp_path / "new" / "objects.csv", 0.5)
    summary = predict_files(predictor, files, tmp_path / "o", Outputs(draw=False, table=table, min_score=least))
    assert summary.table == table.path
    rows = list(csv.DictReader(table.path.read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    shown = [(file, i, one) for file, one in zip(files, found, strict=True) for i in range(len(one.with_score(least)))]
    assert len(rows) == len(shown) < summary.objects
    for row, (file, i, one) in zip(rows, shown, strict=True):
        assert (row["file"], row["class"], float(row["score"])) == (str(file), one.names[i], float(one.scores[i]))
        assert np.allclose([float(row[edge]) for edge in ("x1", "y1", "x2", "y2")], one.boxes[i], atol=1e-3)
        values = measure(one.masks[i], read_image(file), 0.5)
        assert [float(row[name]) if row[name] else None for name in MEASURES] == values


def areas(table: Table) -> list[float]:
    return [float(row["area"]) for row in csv.DictReader(table.path.read_text().splitlines())]


def test_files_say_the_size_of_their_pixels(predictor: Predictor, tmp_path: Path) -> None:
    write_small(tmp_path, "images", 1)
    pixels = Image.fromarray(read_image(next((tmp_path / "images").glob("*.png"))))
    files = [tmp_path / "half.png", tmp_path / "double_\udcfc.png", tmp_path / "broken.png"]  # a name in Latin-1
    pixels.save(files[0], dpi=(50_800, 50_800))  # half a micrometre
    pixels.save(files[1], dpi=(12_700, 12_700))
    files[2].write_bytes(b"nothing")
    outputs = Outputs(draw=False, table=Table(tmp_path / "objects.csv", "file"), min_score=0)
    assert predict_files(predictor, files, tmp_path / "o", outputs).images == 2
    found = np.array(areas(outputs.table))
    assert r"double_\udcfc.png" in outputs.table.path.read_text()
    in_pixels = predictor.predict(files[0])[0].masks.areas()
    assert np.allclose(found, np.concatenate([in_pixels / 4, in_pixels * 4]), rtol=1e-3)

    pixels.save(tmp_path / "silent.png")
    with pytest.raises(ConfigError, match=r"--pixel-size file: .*silent.png does not say the size of its pixels"):
        predict_files(predictor, [*files, tmp_path / "silent.png"], tmp_path / "p", outputs)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("name", ["images/0.png", "o/predictions.json"])
def test_a_table_overwrites_no_image_and_no_results(predictor: Predictor, tmp_path: Path, name: str) -> None:
    write_small(tmp_path, "images", 1)
    files = sorted((tmp_path / "images").glob("*.png"))
    image = files[0].read_bytes()
    with pytest.raises(ConfigError, match="expected a file to write, found"):
        predict_files(predictor, files, tmp_path / "o", Outputs(table=Table(tmp_path / name)))
    assert files[0].read_bytes() == image
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf])
def test_pixels_have_a_size(size: float) -> None:
    with pytest.raises(ConfigError, match="--pixel-size: expected more than 0"):
        Table(Path("a.csv"), size)

"""Objects of tiles: a detector that makes no mistakes must find the same with tiles as without."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from coloured_objects import ColourReader, coloured
from maskrcnn.errors import ConfigError, ImageError
from maskrcnn.predict import (
    SHORT_SIDE,
    Augmented,
    ImageView,
    Outputs,
    Tiled,
    Tiling,
    predict_files,
    predict_images,
    tiles,
)
from maskrcnn.predict.seams import Tile, merge, piece_of
from maskrcnn.predict.tiles import remark_on_size
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE, Masks
from small_data import random_predictor


def ellipses(size_hw: tuple[int, int], count: int, largest: int, seed: int) -> np.ndarray:
    """(H, W) ids of ellipses at random places, which do not overlap."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(size_hw, dtype=np.int64)
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    for number in range(1, count + 1):
        centre, radii = rng.uniform(0, size_hw, 2), rng.uniform(1, largest / 2, 2)
        inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
        if not ids[inside].any():
            ids[inside] = number
    return ids


def contents(found: Instances) -> list[tuple[Any, ...]]:
    """Everything about each object, in an order that does not depend on where it was found."""
    assert found.masks is not None
    return sorted(
        (float(score), int(label), mask.counts, *box.tolist())
        for score, label, mask, box in zip(found.scores, found.labels, found.masks, found.boxes, strict=True)
    )


@pytest.mark.parametrize(
    ("size", "overlap", "largest"),
    [(64, 30, 24), (64, 16, 60), (60, 40, 30), (33, 2, 90), (500, None, 40), (100, None, 40)],
)
def test_objects_are_those_of_the_whole_image(size: int, overlap: int | None, largest: int) -> None:
    for seed in range(2):
        ids = ellipses((110, 170), 30, largest, seed)
        (whole,) = predict_images(ColourReader(), coloured(ids))
        tiled = Tiled(ColourReader(), Tiling(size, overlap), lambda text: None)  # type: ignore[arg-type]
        (found,) = tiled.predict(coloured(ids), batch_size=3)
        assert found.image_hw == (110, 170)
        assert contents(found) == contents(whole)
        assert (np.diff(found.scores) <= 0).all()


def test_tiles_share_at_least_the_overlap_and_cover_the_image() -> None:
    tiling = Tiling(100, 30)
    covered, owned = np.zeros((250, 333), dtype=int), np.zeros((250, 333))
    tiles = tiling.tiles((250, 333))
    for tile in tiles:
        x1, y1, x2, y2 = tile.box
        assert (x2 - x1, y2 - y1) == (100, 100)
        covered[y1:y2, x1:x2] += 1
    assert covered.min() == 1
    lefts = sorted({tile.box[0] for tile in tiles})
    assert np.diff(lefts).max() <= 70
    assert np.diff(lefts).max() - np.diff(lefts).min() <= 1
    assert sum((t.owned[2] - t.owned[0]) * (t.owned[3] - t.owned[1]) for t in tiles) == owned.size
    assert tiling.tiles((40, 99)) == [Tile((0, 0, 99, 40), (0, 0, 99, 40), (40, 99))]


def rectangle(tile: Tile, box: Sequence[int], score: float) -> Instances:
    """One object of a tile: the part inside it of a rectangle of the image."""
    bitmap = np.zeros((tile.box[3] - tile.box[1], tile.box[2] - tile.box[0]), dtype=np.uint8)
    x1, y1, x2, y2 = np.array(box) - np.tile(tile.box[:2], 2)
    bitmap[max(0, y1) : y2, max(0, x1) : x2] = 1
    mask = RLE.from_dense(bitmap)
    ones = np.ones(1, dtype=np.float32)
    return Instances(mask.size, mask.box[None], score * ones, 0 * ones.astype(int), Masks([mask]))


LEFT, RIGHT = (Tile((0, 0, 60, 50), (0, 0, 50, 50), (50, 100)), Tile((40, 0, 100, 50), (50, 0, 100, 50), (50, 100)))


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ((10, 10, 45, 20), (41, 10, 45, 20), [(10, 10, 45, 20)]),  # whole at home covers the rest that the other sees
        ((42, 10, 55, 20), (43, 10, 55, 20), [(42, 10, 55, 20)]),  # twice whole: its owner decides
        ((20, 10, 60, 20), (40, 10, 80, 20), [(20, 10, 80, 20)]),  # both halves agree where both see it
        ((20, 10, 60, 20), (40, 30, 80, 40), [(20, 10, 60, 20), (40, 30, 80, 40)]),  # two objects: both at home
        ((52, 10, 60, 20), (90, 30, 95, 40), [(90, 30, 95, 40)]),  # a part that only a foreign tile has seen
        ((41, 10, 58, 20), (40, 10, 58, 20), [(41, 10, 58, 20)]),  # whole in one, cut at home in neither
        ((35, 10, 60, 20), (45, 10, 75, 20), [(45, 10, 75, 20)]),  # a whole one at home covers 60 % of a cut one
        ((38, 10, 60, 20), (42, 10, 57, 20), [(42, 10, 57, 20)]),  # so does a whole one that is not at home
        ((35, 10, 60, 20), (40, 13, 70, 23), [(35, 10, 70, 23)]),  # the masks agree in the strip: IoU .54
        ((35, 10, 60, 20), (40, 14, 70, 24), [(35, 10, 60, 20), (40, 14, 70, 24)]),  # too little agreement: IoU .43
    ],
)
def test_rules_of_two_tiles(left: Sequence[int], right: Sequence[int], expected: list[Sequence[int]]) -> None:
    found = merge([piece_of(LEFT, rectangle(LEFT, left, 0.9)), piece_of(RIGHT, rectangle(RIGHT, right, 0.8))], 0.5)
    assert sorted(found.boxes.astype(int).tolist()) == sorted(map(list, expected))
    assert found.masks is not None
    np.testing.assert_array_equal(found.masks.boxes(), found.boxes)


def disc(tile: Tile, centre_xy: np.ndarray, radius: float) -> Instances:
    """The part inside a tile of a disc of the image; no object if there is none."""
    x1, y1, x2, y2 = tile.box
    y, x = np.mgrid[y1:y2, x1:x2] + 0.5
    mask = RLE.from_dense(((x - centre_xy[0]) ** 2 + (y - centre_xy[1]) ** 2 < radius**2).astype(np.uint8))
    one = np.ones(1, dtype=np.float32)
    found = Instances(mask.size, mask.box[None], one, 0 * one.astype(int), Masks([mask]))
    return found.select(np.flatnonzero([mask.area > 0]))


def test_a_centroid_that_each_tile_sees_on_the_other_side_is_one_object() -> None:
    left, right = Tiling(64, 16).tiles((64, 112))
    pieces = [piece_of(tile, disc(tile, np.array([x, 32]), 3.5)) for tile, x in ((left, 56.3), (right, 55.7))]
    assert not any(piece.home.any() for piece in pieces)
    assert len(merge(pieces, 0.5)) == 1


@pytest.mark.parametrize("size_hw", [(64, 112), (112, 112)])  # two tiles, and four that meet in a corner
def test_each_object_near_a_seam_is_found_once_by_tiles_that_differ_a_little(size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    tiling = Tiling(64, 16).tiles(size_hw)
    seam = np.array([56, size_hw[0] / 2])
    for _ in range(200):
        centre, radius = seam + rng.uniform(-4, 4, 2), rng.uniform(3, 12)
        pieces = [piece_of(tile, disc(tile, centre + rng.uniform(-0.5, 0.5, 2), radius)) for tile in tiling]
        assert len(merge(pieces, 0.5)) == 1, (centre, radius)


def test_objects_without_masks_are_merged_by_their_boxes() -> None:
    ids = ellipses((100, 160), 8, 30, 1)
    blind = ColourReader(masks=False)
    (whole,) = predict_images(blind, coloured(ids))
    (found,) = Tiled(blind, Tiling(64, 32)).predict(coloured(ids))  # type: ignore[arg-type]
    assert found.masks is None
    assert sorted(found.boxes.tolist()) == sorted(whole.boxes.tolist())


@pytest.mark.parametrize(("width", "calls"), [(64, []), (160, [None])])  # one tile, and four
def test_freed_memory_returns_before_many_tiles_are_merged(
    width: int, calls: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[None] = []
    monkeypatch.setattr(tiles, "TRIMMED", 3)
    monkeypatch.setattr(tiles, "trim", lambda: found.append(None))
    Tiled(ColourReader(), Tiling(64, 32)).predict(coloured(ellipses((64, width), 4, 30, 1)))  # type: ignore[arg-type]
    assert found == calls


def test_one_tile_is_the_image_itself() -> None:
    predictor = random_predictor()
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for model in (predictor, Augmented(predictor, (ImageView(), ImageView(flip_horizontal=True)))):
        (found,), (plain,) = Tiled(model).predict(image), model.predict(image)
        assert len(found) > 3
        np.testing.assert_array_equal(found.boxes, plain.boxes)
        assert found.masks == plain.masks


def test_objects_larger_than_tiles_are_said() -> None:
    ids = np.zeros((100, 300), dtype=np.int64)
    ids[40:60, 10:290] = 1
    remarks: list[str] = []
    tiled = Tiled(ColourReader(), Tiling(64, 16), remarks.append)  # type: ignore[arg-type]
    tiled.predict(coloured(ids))
    assert len(remarks) == 1
    assert "objects that reach through a whole tile of 64 pixels are cut, " in remarks[0]


def test_tiles_in_which_objects_have_another_size_than_in_training_are_said() -> None:
    model = replace(random_predictor(), provenance={SHORT_SIDE: 64})
    assert remark_on_size(model, Tiling(64)) == remark_on_size(model, Tiling(90)) is None
    said = remark_on_size(model, Tiling(256))
    assert said is not None
    assert "in tiles of 256 pixels 0.25 times as large as in training" in said
    assert "choose tiles of about 64 pixels" in said
    assert "times as large" in str(remark_on_size(model, Tiling(32)))
    enlarging = replace(model.config.image, scale=2.0, long_side=1000)
    scaled = replace(model, config=replace(model.config, image=enlarging))
    for other in (random_predictor(), scaled):  # its images are not known, and they are all enlarged by one factor
        assert remark_on_size(other, Tiling(256)) is None


@pytest.mark.parametrize(("size", "overlap"), [(8, None), (64, 64), (64, -1), (64, 0)])
def test_tiles_that_cannot_be_are_refused(size: int, overlap: int | None) -> None:
    with pytest.raises(ConfigError, match="tiles: expected"):
        Tiling(size, overlap)


@dataclass(frozen=True)
class FirstOnly(ColourReader):
    """A detector of one object a tile, which is fast."""

    def _read(self, image: np.ndarray) -> Instances:
        return super()._read(image[:8, :8])


def test_memory_holds_a_few_tiles(tmp_path: Path) -> None:
    side = 4000
    tifffile.imwrite(tmp_path / "large.tif", np.zeros((side, side, 3), np.uint8), tile=(256, 256), photometric="rgb")
    tracemalloc.start()
    tiled = Tiled(FirstOnly(), Tiling(512))  # type: ignore[arg-type]
    summary = predict_files(tiled, [tmp_path / "large.tif"], tmp_path / "out", Outputs(draw=False))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert summary.images == 1
    assert peak < side * side * 3 / 2


def test_broken_images_among_large_ones_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = ellipses((100, 160), 8, 30, 1)
    tifffile.imwrite(tmp_path / "a.tif", coloured(ids), tile=(64, 64), photometric="rgb", compression="zlib")
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(whole[:-30])
    Image.fromarray(coloured(ids)).save(tmp_path / "c.png")
    tiled = Tiled(ColourReader(), Tiling(64, 32))  # type: ignore[arg-type]
    files = [tmp_path / name for name in ("a.tif", "b.tif", "c.png", "none.png")]
    seen: list[int] = []
    summary = predict_files(
        tiled,
        files,
        tmp_path / "out",
        track=lambda items, total: seen.append(total) or items,  # type: ignore[func-returns-value]
    )
    assert (summary.images, len(summary.skipped), seen) == (2, 2, [4])
    assert "b.tif: the image cannot be decoded" in summary.skipped[0]
    assert capsys.readouterr().err.count("skipped: ") == 2
    assert (tmp_path / "out" / "000003_c.png").is_file()
    predict_files(tiled, files[:1], tmp_path / "out", track=lambda items, total: seen.append(total) or items)  # type: ignore[func-returns-value]
    assert seen[1] == len(Tiling(64, 32).tiles((100, 160)))
    with pytest.raises(ImageError, match=r"none.png: expected an image"):
        tiled.predict(files[3])
    assert len(replace(tiled, tiling=Tiling(64, 20)).predict(files[:1])[0]) == len(tiled.predict(files[2])[0])

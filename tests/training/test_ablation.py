"""The ablation table: rows that can be built, runs that are kept, and differences that are judged by their spread."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from maskrcnn.config import Config, TimmConfig
from maskrcnn.config.presets import preset
from maskrcnn.errors import ConfigError
from maskrcnn.models.build import build_model
from maskrcnn.training.ablation import ROWS, TABLES, AblationRow, Measured, Runs, markdown, write_tables
from small_data import small_config, write_small

FCN, MLP = (row for row in ROWS if row.table == "mask branch")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.table}: {row.name}")
@pytest.mark.parametrize("base", ["mask_rcnn_tiny", "mask_rcnn_R_18_FPN"])
def test_every_row_can_be_built(row: AblationRow, base: str) -> None:
    changed = row.change(preset(base))
    with torch.device("meta"):
        build_model(changed)
    first = row.reference
    assert first.table == row.table
    if row is not first:
        assert changed != first.change(preset(base))


@pytest.mark.parametrize("table", ["boxes", "keypoints"])
def test_with_masks_has_masks_whatever_the_base(table: str) -> None:
    rows = [row for row in ROWS if row.table == table]
    found = {row.name: row.change(preset("keypoint_rcnn_R_50_FPN")).model.mask_head for row in rows}
    assert found.pop("with masks") is not None
    assert list(found.values()) == [None]


def test_tables_name_their_rows_once() -> None:
    assert len({(row.table, row.name) for row in ROWS}) == len(ROWS)
    for table in TABLES:
        rows = [row for row in ROWS if row.table == table]
        assert len(rows) >= 2
        assert len({row.metric for row in rows}) == 1


def measured(*pairs: tuple[float, float]) -> Measured:
    return Measured(MLP, tuple(own for own, _ in pairs), tuple(other for _, other in pairs))


@pytest.mark.parametrize(
    ("found", "difference", "spread", "verdict"),
    [
        (measured((30, 33), (31, 33), (32, 33)), -2, 1, "as in the paper"),
        (measured((30, 33), (36, 33), (33, 33)), 0, 3, "no difference seen"),
        (measured((35, 33), (35, 33)), 2, 0, "opposite"),
        (measured((30, 33)), -3, 0, "one seed"),
    ],
)
def test_a_difference_counts_when_it_exceeds_its_spread(
    found: Measured, difference: float, spread: float, verdict: str
) -> None:
    assert found.difference == pytest.approx(difference)
    assert found.spread == pytest.approx(spread)
    assert found.paper_difference == pytest.approx(31.5 - 33.6)
    assert found.verdict() == verdict


def test_the_table_says_what_was_measured(tmp_path: Path) -> None:
    rows = [Measured(FCN, (33, 34), (33, 34)), measured((30, 33), (32, 34))]
    lines = markdown(rows).splitlines()
    assert lines[2] == "| mask branch | FCN | 33.5 ± 0.7 |  | 33.6 |  | reference |"
    assert lines[3] == "| mask branch | MLP | 31.0 ± 1.4 | -2.5 ± 0.7 | 31.5 | -2.1 | as in the paper |"
    write_tables(rows, tmp_path)
    stored = json.loads((tmp_path / "ablations.json").read_text())
    assert [row["ap"] for row in stored] == [[33, 34], [30, 32]]
    assert stored[1]["difference"] == pytest.approx(-2.5)
    with Image.open(tmp_path / "ablations.png") as picture:
        assert picture.size[0] > 500


@pytest.mark.slow
def test_runs_are_shared_and_kept(tmp_path: Path) -> None:
    data, val = write_small(tmp_path, "train", 4), write_small(tmp_path, "val", 2, seed=1)
    base = small_config()
    base = replace(base, train=replace(base.train, steps=2, workers=0))
    said: list[str] = []
    runs = Runs(base, data, val, tmp_path / "out")
    found = runs.measure(MLP, 1, said.append)
    assert len(said) == 2  # the row and its reference
    assert found.ap[0] >= 0
    again = runs.measure(MLP, 1, said.append)
    assert again == found
    boxes = next(row for row in ROWS if row.table == "boxes")  # the same configuration as FCN
    runs.measure(boxes, 1, said.append)
    assert len(said) == 2
    Runs(replace(base, train=replace(base.train, steps=1)), data, val, tmp_path / "out").measure(boxes, 1, said.append)
    assert len(said) == 3  # another budget is another run


def test_a_backbone_without_a_deeper_one(tmp_path: Path) -> None:
    deeper = next(row for row in ROWS if row.name == "FPN, deeper")
    with pytest.raises(ConfigError, match="ResNet deeper than 152"):
        deeper.change(preset("mask_rcnn_R_152_FPN"))
    base = Config()
    with pytest.raises(ConfigError, match="expected a ResNet"):
        deeper.change(replace(base, model=replace(base.model, backbone=TimmConfig("convnext_tiny"))))

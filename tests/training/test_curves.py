"""The curves of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from maskrcnn.errors import DataError
from maskrcnn.training.curves import curves


def metrics(path: Path, *, evaluations: bool = True) -> Path:
    lines: list[dict[str, object]] = []
    for step in range(20, 401, 20):
        lines.append({"step": step, "loss": 40 / step, "loss_class": 20 / step, "loss_mask": 20 / step, "lr": 0.01})
        if evaluations and step % 200 == 0:
            figures = {"AP": step / 1000, "AP50": None if step == 200 else 0.7}
            lines.append({"step": step, "masks": None if step == 200 else figures, "boxes": figures})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("evaluations", [True, False])
def test_curves_draw_a_picture(tmp_path: Path, evaluations: bool) -> None:
    path = metrics(tmp_path / "metrics.jsonl", evaluations=evaluations)
    with path.open("a") as file:
        file.write('{"step": 420, "los')  # killed while writing
    curves(path, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert picture.size[1] >= 500
        assert (picture.size[0] > 1000) == evaluations
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]


def test_curves_draw_keypoints_of_results_without_boxes(tmp_path: Path) -> None:
    figures = {"masks": None, "boxes": None, "keypoints": {"AP": 0.4, "AP50": 0.8}}
    lines = [{"step": 20, "loss": 2.0, "lr": 0.1}, {"step": 20, **figures}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves(tmp_path / "m.jsonl", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 20) or []
    assert (46, 196, 182) in {colour for _, colour in colours}


def test_curves_without_a_defined_score_have_no_second_part(tmp_path: Path) -> None:
    lines = [{"step": 20, "loss": 2.0, "lr": 0.1}, {"step": 20, "masks": None, "boxes": {"AP": None, "AP50": None}}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves(tmp_path / "m.jsonl", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] < 1000


def test_curves_of_one_step(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"step": 1, "loss": 2.0, "loss_box": 1.0}\n')
    curves(tmp_path / "m.jsonl", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_curves_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: the metrics of a run cannot be read"):
        curves(tmp_path / "none.jsonl", tmp_path / "curves.png")
    (tmp_path / "empty.jsonl").write_text('{"step": 3, "masks": {}, "boxes": {}}\n\n')
    with pytest.raises(DataError, match="expected lines with step and loss, found none among 1"):
        curves(tmp_path / "empty.jsonl", tmp_path / "curves.png")

"""The report as text: what people read and copy."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from maskrcnn.evaluation.coco import Report
from maskrcnn.evaluation.report import table

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
MASKS: dict[str, float | None] = {name: i / 16 for i, name in enumerate(NAMES)}
BOXES: dict[str, float | None] = {name: 0.5 + i / 32 for i, name in enumerate(NAMES)}
REPORT = Report(
    masks={**MASKS, "APl": None},
    boxes=BOXES,
    per_class={"circle": {"masks": 0.25, "boxes": None}, "a [b] star": {"masks": 0.75, "boxes": 0.5}},
    images=3,
    objects=5,
    detections=7,
    max_detections=100,
)


def printed(report: Report) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(table(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_line_can_be_copied() -> None:
    expected = "mask AP 0.000  AP50 0.062  AP75 0.125   box AP 0.500  AP50 0.531  AP75 0.562"
    assert REPORT.line() == expected
    assert replace(REPORT, masks=None).line() == "box AP 0.500  AP50 0.531  AP75 0.562"


def test_table_fits_80_columns_and_names_every_figure() -> None:
    lines = printed(REPORT)
    assert max(map(len, lines)) <= 80
    head, masks, boxes = (line.split() for line in lines[:3])
    assert tuple(head) == NAMES
    assert masks == ["masks", *("-" if name == "APl" else f"{MASKS[name]:.3f}" for name in NAMES)]
    assert boxes == ["boxes", *(f"{BOXES[name]:.3f}" for name in NAMES)]
    assert lines[4].split() == ["AP", "of", "class", "masks", "boxes"]
    assert lines[5].split() == ["circle", "0.250", "-"]
    assert lines[6].split() == ["a", "[b]", "star", "0.750", "0.500"], "brackets are no markup"
    assert lines[8] == "3 images, 5 objects, 7 detections, at most 100 per image"


def test_table_without_masks_and_with_one_class() -> None:
    lines = printed(replace(REPORT, masks=None, per_class={"cell": {"masks": None, "boxes": 0.5}}))
    assert [line.split()[0] for line in lines if line] == ["AP", "boxes", "3"]


def test_table_tells_what_was_left_out() -> None:
    text = str(table(replace(REPORT, skipped=("val.json: annotations[3]: [no] area", "more"))))
    assert text.endswith("\n2 entries of the ground truth left out, first: val.json: annotations[3]: [no] area")

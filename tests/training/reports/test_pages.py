"""The pages on an evaluation and on a run, read as text and in a browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import require_sound_page
from maskrcnn.config.presets import preset
from maskrcnn.data.formats import read_dataset
from maskrcnn.evaluation.coco import Report, evaluate_results
from maskrcnn.structures.coco import coco_annotations
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.recipes.choices import RECIPE, note_choices
from maskrcnn.training.reports import examples
from maskrcnn.training.reports.evaluation import evaluation_page
from maskrcnn.training.reports.run import PAGE, seconds_of, write_page
from maskrcnn.training.reports.settings import nearest_preset
from maskrcnn.visualise import contact_sheet
from small_data import small_config, write_small


def judged(folder: Path) -> tuple[Dataset, Report]:
    """A small data set, and results with a moved object, a missing one and a false positive."""
    dataset = read_dataset(write_small(folder, "val", 3))
    masks = [mask for index in range(len(dataset)) for mask in dataset.instances(index).masks or ()]
    results = [
        {
            **{key: entry[key] for key in ("image_id", "category_id")},
            "segmentation": mask.shifted((9 * (number % 2), 0), mask.size).to_coco(),
            "score": 0.9 - 0.1 * number,
        }
        for number, (entry, mask) in enumerate(zip(coco_annotations(dataset), masks, strict=True))
    ]
    return dataset, evaluate_results(dataset, results[1:], analysis=True)


def run_of(folder: Path) -> Path:
    dataset, report = judged(folder)
    rows = [
        {"step": 20, "loss": 2.0, "loss_mask": 0.7, "lr": 0.01, "seconds": {"loading": 1.0, "steps": 8.0}},
        {"step": 40, "loss": 1.5, "loss_mask": 0.5, "lr": 0.01, "seconds": {"loading": 1.5, "steps": 7.5}},
        {"step": 40, **report.to_dict(), "seconds": {"evaluation": 2.0}},
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    note_choices(folder / RECIPE, {"augment.crop": [64, 96]}, "objects <fit>")
    write_page(folder, small_config(), dataset, report)
    return folder / PAGE


@pytest.mark.slow
def test_a_page_of_a_run_shows_curves_settings_mistakes_and_time(tmp_path: Path) -> None:
    content = run_of(tmp_path).read_text()
    for title in ("Curves", "Precision and recall", "Errors", "Worst false positives", "Worst misses", "Time"):
        assert f"<h2>{title}</h2>" in content
    assert content.count("<svg ") == 3 + 2 + 2
    assert f"judged by 3 images of {tmp_path}" in content
    assert "<td>augment.crop</td><td>64 96</td><td>objects &lt;fit&gt;</td>" in content
    assert "The nearest preset is mask_rcnn_tiny" in content
    assert "train.steps" in content
    assert '<td>training steps</td><td class="number">15.5</td><td>78%</td>' in content
    assert content.count("data:image/jpeg;base64,") >= 5
    assert not [path for path in tmp_path.iterdir() if ".tmp" in path.name]


def test_images_that_cannot_be_read_are_left_out_of_a_page(tmp_path: Path) -> None:
    dataset, report = judged(tmp_path)
    shutil.rmtree(tmp_path / "val")
    content = evaluation_page("Results <1>", dataset, report)
    assert "<h1>Results &lt;1&gt;</h1>" in content
    assert "data:image/jpeg" not in content


def test_large_images_are_read_and_shown_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, report = judged(tmp_path)
    parts: list[tuple[int, ...]] = []

    def drawn(rows: list[tuple[np.ndarray, Any, Any]], **words: Any) -> np.ndarray:
        parts.append(rows[0][0].shape)
        return contact_sheet(rows, **words)

    def whole(*words: Any) -> np.ndarray:
        raise AssertionError("read as a whole")

    monkeypatch.setattr(examples, "contact_sheet", drawn)
    monkeypatch.setattr(examples, "_MOST_SIDE", 50)
    monkeypatch.setattr(Dataset, "read", whole)
    assert evaluation_page("Page", dataset, report).count("data:image/jpeg;base64,") == len(parts)
    assert len(parts) >= 5
    assert {height for height, _, _ in parts} == {50}, "of 64 pixels"
    assert max(width for _, width, _ in parts) == 50, "of 80 pixels"


def test_many_classes_are_listed_by_how_often_they_are_confused(tmp_path: Path) -> None:
    path = write_small(tmp_path, "val", 2)
    content = json.loads(path.read_text())
    content["categories"] += [{"id": 100 + i, "name": f"_kind ${i}"} for i in range(20)]
    path.write_text(json.dumps(content))
    dataset = read_dataset(path)
    first = content["annotations"][0]
    results = [{**{key: first[key] for key in ("image_id", "bbox")}, "category_id": 107, "score": 0.9}]
    page = evaluation_page("Page", dataset, evaluate_results(dataset, results, analysis=True))
    assert "<td>_kind $7</td>" in page
    assert "commonest pairs" in page


def test_settings_are_compared_with_the_nearest_preset() -> None:
    assert nearest_preset(preset("mask_rcnn_R_50_C4")) == ("mask_rcnn_R_50_C4", {})
    name, differing = nearest_preset(small_config(steps=7))
    assert name == "mask_rcnn_tiny"
    assert differing["train.steps"][1] == 7


def test_seconds_are_summed_over_lines_of_any_kind() -> None:
    rows = [{"seconds": {"steps": 1.5}}, {}, {"seconds": 3}, {"seconds": {"steps": 1, "loading": "x"}}]
    assert seconds_of(rows) == {"steps": 2.5}


@pytest.mark.slow
def test_a_browser_shows_a_page_without_complaint(tmp_path: Path) -> None:
    require_sound_page(run_of(tmp_path))

"""COCO figures of a model on a data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskrcnn.errors import DataError, WeightsError
from maskrcnn.evaluation.coco import evaluate_results
from maskrcnn.predict import Predictor
from maskrcnn.training.evaluate import evaluate
from small_data import random_predictor, write_small


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return random_predictor()


def test_a_model_file_a_predictor_and_its_written_results_agree(predictor: Predictor, tmp_path: Path) -> None:
    data = write_small(tmp_path, "val", 3)
    predictor.save(tmp_path / "m.safetensors")
    report = evaluate(predictor, data, results_out=tmp_path / "results.json")
    assert (report.images, report.objects) == (3, len(json.loads(data.read_text())["annotations"]))
    assert report.detections > 0
    assert evaluate(tmp_path / "m.safetensors", str(data)) == report
    assert evaluate_results(data, tmp_path / "results.json") == report


def test_limits(predictor: Predictor, tmp_path: Path) -> None:
    data = write_small(tmp_path, "val", 3)
    report = evaluate(predictor, data, limit=2, max_detections=4)
    assert (report.images, report.max_detections) == (2, 4)
    assert report.detections <= 8


def test_other_categories_are_refused(predictor: Predictor, tmp_path: Path) -> None:
    data = write_small(tmp_path, "val", 1)
    content = json.loads(data.read_text())
    content["categories"][0]["id"] = 9
    for annotation in content["annotations"]:
        annotation["category_id"] = 3
    data.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"the model knows red \(id 7\) and the data set has red \(id 9\)"):
        evaluate(predictor, data)
    with pytest.raises(WeightsError, match="no such file"):
        evaluate(tmp_path / "none.safetensors", data)

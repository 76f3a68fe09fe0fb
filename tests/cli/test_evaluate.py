from __future__ import annotations

import json

from small_people import people_coco


def test_a_model_or_results_but_not_both(command):
    neither = command("evaluate", "--data", "d.json")
    assert neither.code == 2
    assert neither.err == "error: evaluate needs either --model or --results, found neither\n"
    both = command("evaluate", "--data", "d.json", "--model", "m.safetensors", "--results", "r.json")
    assert both.code == 2
    assert "found both" in both.err


def test_no_detections_are_refused(command, tmp_path):
    content, _ = people_coco(1)
    data, results = tmp_path / "val.json", tmp_path / "found.json"
    data.write_text(json.dumps(content))
    results.write_text("[]")
    ran = command("evaluate", "--data", data, "--results", results, "--max-detections", 0)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: max_detections: expected 1 or more detections per image, found 0\n"


def test_a_missing_model_file_is_one_line(command):
    ran = command("evaluate", "--data", "d.json", "--model", "no/such.safetensors")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: no/such.safetensors")
    assert ran.err.count("\n") == 1


def test_keypoint_results_of_any_detector(command, tmp_path):
    content, _ = people_coco(2)
    data, results = tmp_path / "val.json", tmp_path / "found.json"
    data.write_text(json.dumps(content))
    keys = ("image_id", "category_id", "keypoints")
    results.write_text(json.dumps([{**{key: a[key] for key in keys}, "score": 0.9} for a in content["annotations"]]))
    ran = command("evaluate", "--data", data, "--results", results, "--json")
    report = json.loads(ran.out)
    assert (ran.code, report["masks"], report["boxes"]) == (0, None, None)
    assert list(report["keypoints"]) == ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
    assert round(report["keypoints"]["AP"], 6) == 1
    assert "keypoints 1.000 1.000 1.000" in command("evaluate", "--data", data, "--results", results).out
    for category in content["categories"]:
        category.pop("keypoints")
    data.write_text(json.dumps(content))
    ran = command("evaluate", "--data", data, "--results", results)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "entry 0: expected no keypoints, because the category person" in ran.err

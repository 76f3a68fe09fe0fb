from __future__ import annotations

import json

import pytest

from maskrcnn.training.reports import evaluation
from small_data import random_predictor, write_small
from small_people import people_coco


def test_a_model_or_results_but_not_both(command):
    neither = command("evaluate", "--data", "d.json")
    assert neither.code == 2
    assert neither.err == "error: evaluate needs either --model or --results, found neither\n"
    both = command("evaluate", "--data", "d.json", "--model", "m.safetensors", "--results", "r.json")
    assert both.code == 2
    assert "found both" in both.err


@pytest.mark.parametrize("number", [0, 2**70])
def test_a_limit_that_is_no_number_of_detections_is_refused(command, tmp_path, number):
    content, _ = people_coco(1)
    data, results = tmp_path / "val.json", tmp_path / "found.json"
    data.write_text(json.dumps(content))
    results.write_text("[]")
    ran = command("evaluate", "--data", data, "--results", results, "--max-detections", number)
    assert (ran.code, ran.out) == (2, "")
    assert (
        ran.err
        == f"error: max_detections: expected a whole number of 1 to 1000000000 detections per image, found {number}\n"
    )


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


def squares(ids, **annotation):
    """A COCO JSON with one box and mask on each image, named by position, and exact results with other ids."""
    box, mask = [10, 5, 20, 10], {"size": [40, 50], "counts": [405, *[10, 30] * 19, 10, 825]}
    images = [{"id": n, "height": 40, "width": 50, "file_name": f"{i}.png"} for i, n in enumerate(ids, start=1)]
    own = [
        {"id": i, "image_id": n, "category_id": 1, "bbox": [*box[:3], 10 + i], **annotation}
        for i, n in enumerate(ids, start=1)
    ]
    content = {"images": images, "annotations": own, "categories": [{"id": 1, "name": "square"}]}
    keys = {"category_id": 1, "segmentation": mask, "score": 0.9}
    found = [{**keys, "image_id": i, "file_name": f"of/{i}.png", "bbox": a["bbox"]} for i, a in enumerate(own, start=1)]
    return content, found


def written(folder, content, found):
    for name, value in (("val", content), ("found", found)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    return "--data", folder / "val.json", "--results", folder / "found.json"


def test_results_with_other_ids_are_judged_by_their_file_names(command, tmp_path):
    flags = written(tmp_path, *squares([2, 3, 1]))
    ran = command("evaluate", *flags)
    assert (ran.code, ran.err) == (0, "")
    assert "the results were placed by file_name" in ran.out
    assert json.loads(command("evaluate", *flags, "--json").out)["boxes"]["AP"] > 0.999


def test_nothing_to_judge_is_an_error(command, tmp_path):
    content, found = squares([1, 2], iscrowd=1)
    for json_flag in ((), ("--json",)):
        ran = command("evaluate", *written(tmp_path, content, found), *json_flag)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert "each of its 2 annotations is a crowd region" in ran.err
    content, _ = squares([1, 2])
    ran = command("evaluate", *written(tmp_path, content, []))
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "masks" in ran.out, "the figures are those of a model that finds nothing"
    assert "found.json: expected results to judge, found none for the images of" in ran.err


def test_undefined_figures_are_printed_said_and_an_error(command, tmp_path):
    content, found = squares([1, 2])
    content["annotations"].pop(0)  # the first image holds nothing to find
    flags = (*written(tmp_path, content, found), "--limit", 1)
    ran = command("evaluate", *flags)
    assert ran.code == 2
    assert "1 images, 0 objects" in ran.out
    assert ran.err == "error: no AP is defined: 1 images were judged, with 0 objects to find\n"
    ran = command("evaluate", *flags, "--json")
    report = json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (ran.code, report["boxes"]["AP"], report["undefined"]) == (2, None, ran.err[7:-1])


def test_a_model_that_sees_no_image_gives_no_figures(command, tmp_path):
    data = write_small(tmp_path, "val", 2)
    random_predictor().save(tmp_path / "m.safetensors")
    for image in (tmp_path / "val").iterdir():
        image.write_bytes(b"no image")
    ran = command("evaluate", "--data", data, "--model", tmp_path / "m.safetensors")
    assert ran.code == 2
    assert "error: no AP is defined: 0 images were judged" in ran.err


def test_limit_and_strict_hold_for_results(command, tmp_path):
    content, found = squares([1, 2, 3])
    flags = written(tmp_path, content, found)
    report = json.loads(command("evaluate", *flags, "--limit", 2, "--json").out)
    assert (report["images"], report["detections"]) == (2, 2)
    assert "1 results of other images of the data set are not counted" in report["notes"]
    assert "limit: expected a whole number of 1 or more" in command("evaluate", *flags, "--limit", 0).err
    content["annotations"][1]["bbox"] = "wide"
    assert command("evaluate", *written(tmp_path, content, found)).code == 0
    assert command("evaluate", *flags, "--strict").code == 2


@pytest.mark.parametrize(
    "flags",
    [("--batch-size", 4), ("--results-out", "r.json"), ("--compile",), ("--allow-partial",), ("--part", "teacher")],
)
def test_flags_of_a_model_are_refused_beside_results(command, tmp_path, flags):
    ran = command("evaluate", *written(tmp_path, *squares([1])), *flags)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: expected --model with {flags[0]}, found --results, whose figures need no network\n"


@pytest.mark.parametrize("read", ["val.json", "m.safetensors"])
def test_results_do_not_overwrite_what_is_read(command, tmp_path, read):
    data = write_small(tmp_path, "val", 1)
    random_predictor().save(tmp_path / "m.safetensors")
    before = (tmp_path / read).read_bytes()
    ran = command(
        *("evaluate", "--model", tmp_path / "m.safetensors", "--data", data, "--results-out", tmp_path / read)
    )
    assert (ran.code, ran.out) == (2, "")
    assert (
        ran.err == f"error: {tmp_path / read}: expected a file to write, found one that is read; choose another path\n"
    )
    assert (tmp_path / read).read_bytes() == before


def test_boxes_given_as_corners_are_noted(command, tmp_path):
    content, found = squares([1, 2])
    flags = written(tmp_path, content, [{**entry, "bbox": [30, 5, 50, 15]} for entry in found])
    notes = json.loads(command("evaluate", *flags, "--json").out)["notes"]
    assert "the bbox of 2 of 2 results ends more than 2 pixels outside of its image" in notes[0]


def test_results_of_a_part_of_the_images_are_noted(command, tmp_path):
    content, found = squares([1, 2, 3, 4])
    for judged, said in ((1, True), (2, False)):
        report = json.loads(command("evaluate", *written(tmp_path, content, found[:judged]), "--json").out)
        assert ("3 of 4 images with objects have no result; " in " ".join(report["notes"])) == said


def test_a_page_of_results(command, tmp_path):
    content, found = squares([1, 2])
    given = written(tmp_path, content, found)
    out = tmp_path / "page.html"
    ran = command("evaluate", *given, "--report", out, "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["analysis"]["thresholds"]["square"]["f1"] == 1
    assert "<h2>Worst misses</h2>" in out.read_text()
    refused = command("evaluate", *given, "--report", given[3])
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert json.loads(given[3].read_text()) == found


def test_a_page_of_a_model_gives_truth_and_detections_the_same_labels(command, tmp_path, monkeypatch):
    data = write_small(tmp_path, "val", 2)
    content = json.loads(data.read_text())
    content["annotations"] = [{**a, "category_id": "red"} for a in content["annotations"] if a["category_id"] == 7]
    content["categories"] = [{"id": "red", "name": "red"}]  # known by its name, and the second class of the model
    data.write_text(json.dumps(content))
    random_predictor().save(tmp_path / "m.safetensors")
    shown = []
    monkeypatch.setattr(evaluation, "evaluation_page", lambda title, dataset, report: shown.append(dataset) or "")
    flags = ("--data", data, "--model", tmp_path / "m.safetensors", "--report", tmp_path / "page.html")
    assert command("evaluate", *flags).code == 0
    assert [category.name for category in shown[0].categories] == ["blue", "red"]
    truth = [shown[0].instances(number) for number in range(2)]
    assert {label for objects in truth for label in objects.labels.tolist()} == {1}
    assert {name for objects in truth for name in objects.names} == {"red"}


def test_predictions_and_page_in_one_file_are_refused(command, tmp_path):
    out = tmp_path / "out.json"
    same = tmp_path / "new" / ".." / "out.json"
    given = ("--data", "d.json", "--model", "m.safetensors")
    ran = command("evaluate", *given, "--results-out", same, "--report", out)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: expected two files, found {out} with both --results-out and --report\n"


def test_a_score_without_the_measure_that_needs_it_is_one_line(command, tmp_path):
    content, found = squares([1, 2])
    ran = command("evaluate", *written(tmp_path, content, found), "--min-score", 0.3)
    assert (ran.code, ran.out, ran.err) == (2, "", "error: --min-score belongs to --matching, which is missing\n")

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskrcnn.cli import predict
from maskrcnn.ops import device
from maskrcnn.predict import SHORT_SIDE, Predictor, Tiling, TorchBackend, files
from small_data import random_predictor, small_coco, write_small
from small_network import lively_network, network_config


def test_flags():
    parsed = predict.parse(["--model", "m.safetensors", "a.jpg", "photos/*.png", "--out", "o", "--no-draw"])
    assert parsed.images == ("a.jpg", "photos/*.png")
    assert parsed.draw is False
    assert predict.parse(["a.jpg", "--model", "m", "--out", "o"]).draw is True


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batches_and_precision_reach_the_network(command, tmp_path, monkeypatch, precision):
    write_small(tmp_path, "images", 3)
    random_predictor().save(tmp_path / "m.safetensors")
    seen = []
    detect = TorchBackend.detect

    def noted(self, images, settings):
        seen.append((self.precision, len(images)))
        return detect(self, images, settings)

    monkeypatch.setattr(TorchBackend, "detect", noted)
    words = ["--model", tmp_path / "m.safetensors", "--batch-size", 2, "--precision", precision]
    ran = command("predict", tmp_path / "images", "--out", tmp_path / "o", "--no-draw", *words)
    assert ran.code == 0, ran.err
    assert seen == [(precision, 2), (precision, 1)]
    seen.clear()
    assert command("evaluate", "--data", tmp_path / "images.json", *words).code == 0
    assert seen == [(precision, 2), (precision, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("fast", [False, True])
def test_the_precision_that_auto_has_chosen_is_said(command, tmp_path, monkeypatch, fast):
    write_small(tmp_path, "images", 1)
    random_predictor().save(tmp_path / "m.safetensors")
    monkeypatch.setattr(device, "_cpu_has_fast_bf16", lambda: fast)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ("predict", tmp_path / "images", "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o")
    assert ("\nprecision: bf16, " in command(*words).out) is fast
    assert "\nprecision:" not in command(*words, "--precision", "bf16").out
    assert json.loads(command(*words, "--json").out)["precision"] == ("bf16" if fast else "fp32")
    words = ("evaluate", "--data", tmp_path / "images.json", "--model", tmp_path / "m.safetensors")
    assert ("precision: bf16, " in command(*words).err) is fast
    words = ("evaluate", "--data", tmp_path / "gone.json", "--model", tmp_path / "m.safetensors")
    assert command(*words).err.count("\n") == 1  # only the error


def test_pictures_are_said_where_some_are_drawn(command, tmp_path, monkeypatch):
    write_small(tmp_path, "images", 1)
    random_predictor().save(tmp_path / "m.safetensors")
    words = ("predict", tmp_path / "images", "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o")
    assert f"pictures: {tmp_path / 'o'}" in command(*words).out
    monkeypatch.setattr(files, "MOST_DRAWN", 100)
    ran = command(*words)
    assert (ran.code, "no picture of" in ran.err, "pictures:" in ran.out) == (0, True, False)


@pytest.mark.parametrize("out", ["images", "images/found"])
def test_pictures_are_not_written_among_the_images(command, tmp_path, out):
    write_small(tmp_path, "images", 1)
    ran = command("predict", tmp_path / "images", "--model", tmp_path / "m.safetensors", "--out", tmp_path / out)
    assert ran.code == 2
    assert "expected a folder outside of" in ran.err


def test_results_do_not_replace_the_data_set(command, tmp_path):
    data = write_small(tmp_path, "predictions", 1)
    outlined = data.with_name("0.geojson")
    outlined.write_text('{"type": "FeatureCollection", "features": []}')
    flags = ("--model", tmp_path / "m.safetensors", "--no-draw", "--geojson")
    for source, out, message in (
        (data, tmp_path, "predictions.json: expected a file to write, found one that is read"),
        (outlined, tmp_path, "0.geojson: expected a file to write, found one that is read"),
        (tmp_path, tmp_path, f"{tmp_path}: expected a folder outside of {tmp_path}, which is read"),
        (tmp_path, tmp_path / "o", f"{tmp_path / 'o'}: expected a folder outside of {tmp_path}, which is read"),
    ):
        contents = [file.read_bytes() for file in (data, outlined)]
        ran = command("predict", "--data", source, "--out", out, *flags)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert message in ran.err
        assert [file.read_bytes() for file in (data, outlined)] == contents


@pytest.mark.parametrize("wrong", ["no/such.jpg", "no/such/*.jpg"])
def test_missing_images_are_one_line(command, tmp_path, wrong):
    ran = command("predict", wrong, "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert wrong in ran.err
    assert ran.err.count("\n") == 1


def predicted(folder):
    return [(entry["image_id"], entry["file_name"]) for entry in json.loads((folder / "predictions.json").read_text())]


def test_results_get_the_ids_of_a_data_set(command, tmp_path):
    data = write_small(tmp_path, "images", 3)
    content = json.loads(data.read_text())
    ids = {1: "c", 2: "a", 3: "b"}
    for entry in (*content["images"], *content["annotations"]):
        key = "image_id" if "image_id" in entry else "id"
        entry[key] = ids[entry[key]]
    data.write_text(json.dumps(content))
    random_predictor().save(tmp_path / "m.safetensors")
    flags = ("--model", tmp_path / "m.safetensors", "--data", data, "--no-draw", "--out")
    names = {image["id"]: str(tmp_path / "images" / image["file_name"]) for image in content["images"]}
    ran = command("predict", *flags, tmp_path / "all")
    assert ran.code == 0, ran.err
    assert set(predicted(tmp_path / "all")) == set(names.items())
    ran = command("predict", names["b"], names["c"], *flags, tmp_path / "two")
    assert ran.code == 0, ran.err
    assert set(predicted(tmp_path / "two")) == {("b", names["b"]), ("c", names["c"])}
    ran = command("evaluate", "--data", data, "--results", tmp_path / "all" / "predictions.json", "--json")
    assert (ran.code, json.loads(ran.out)["images"]) == (0, 3)
    assert "placed by file_name" not in ran.out


def test_files_must_be_images_of_the_data_set(command, tmp_path):
    data = write_small(tmp_path, "images", 2)
    write_small(tmp_path, "others", 3)
    flags = ("--model", "m", "--data", data, "--out", tmp_path / "o")
    for names, message in (
        (["others/2.png"], "2.png: expected the name of one image of"),
        (["images/1.png", "others/1.png"], "expected one file for each image"),
    ):
        ran = command("predict", *(tmp_path / name for name in names), *flags)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert message in ran.err


def test_neither_images_nor_data_is_one_line(command, tmp_path):
    ran = command("predict", "--model", "m", "--out", tmp_path)
    assert (ran.code, ran.out, ran.err) == (2, "", "error: predict needs IMAGES or --data, found neither\n")


def test_objects_are_measured(command, tmp_path):
    write_small(tmp_path, "images", 2)
    random_predictor().save(tmp_path / "m.safetensors")
    flags = (
        "predict",
        tmp_path / "images",
        "--model",
        tmp_path / "m.safetensors",
        "--out",
        tmp_path / "o",
        "--no-draw",
    )
    ran = command(*flags, "--table", tmp_path / "objects.csv", "--pixel-size", 0.5, "--min-score", 0, "--json")
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert summary["table"] == str(tmp_path / "objects.csv")
    assert (tmp_path / "objects.csv").read_text().count("\n") == 1 + summary["objects"]
    for words, message in (
        (("--pixel-size", 2), "--pixel-size scales the lengths of --table, which is missing"),
        (("--table", tmp_path / "a.csv", "--pixel-size", 0), "--pixel-size: expected more than 0, found 0.0"),
        (("--table", tmp_path / "images"), "images: expected a file to write, found a folder"),
        (("--table", tmp_path / "images" / "0.png"), "0.png: expected a file to write, found one that is read"),
        (("--table", tmp_path / "m.safetensors"), "m.safetensors: expected a file to write, found one that is read"),
        (("--table", tmp_path / "a.csv", "--pixel-size", "file"), "0.png does not say the size of its pixels"),
    ):
        ran = command(*flags, *words)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert message in ran.err


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [False, True])
def test_the_thresholds_in_the_model_file_decide_unless_a_score_is_given(command, tmp_path, spoilt):
    write_small(tmp_path, "images", 2)
    images = [tmp_path / "images" / f"{i}.png" for i in range(2)]
    model = random_predictor()
    found = [
        (score, label) for one in model.predict(images) for score, label in zip(one.scores, one.labels, strict=True)
    ]
    middle = float(np.median([score for score, label in found if label == 0]))
    stored = ["0.1", -1] if spoilt else [middle, None]
    assert replace(model, provenance={"thresholds": stored}).thresholds == ((0.5, 0.5) if spoilt else (middle, 0.5))
    replace(model, provenance={"thresholds": stored}).save(tmp_path / "m.safetensors")
    flags = ("--model", tmp_path / "m.safetensors", "--no-draw", "--table", tmp_path / "a.csv", "--precision", "fp32")
    least = (0.5, 0.5) if spoilt else (middle, 0.5)
    for given, expected in (((), least), (("--min-score", 0.02), (0.02, 0.02))):
        assert command("predict", *images, *flags, "--out", tmp_path / "o", *given).code == 0
        count = (tmp_path / "a.csv").read_text().count("\n") - 1
        assert count == sum(score >= np.float32(expected[label]) for score, label in found)


def test_a_model_without_masks_measures_nothing(command, tmp_path):
    write_small(tmp_path, "images", 1)
    config = network_config(num_classes=2, mask_head=None)
    Predictor(TorchBackend(lively_network(config).eval()), config).save(tmp_path / "m.safetensors")
    ran = command(
        *("predict", tmp_path / "images", "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o"),
        *("--table", tmp_path / "a.csv"),
    )
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "--table measures masks" in ran.err
    ran = command(
        *("predict", tmp_path / "images", "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o"),
        *("--save", "rle-csv"),
    )
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "--save rle-csv: the model finds no masks; expected a format with boxes: coco, cvat, label-studio" in ran.err


@pytest.mark.parametrize("score", ["2", "-0.1", "nan"])
def test_a_score_that_no_object_has_is_refused(command, tmp_path, score):
    write_small(tmp_path, "images", 1)
    random_predictor().save(tmp_path / "m.safetensors")
    ran = command(
        *("predict", tmp_path / "images", "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o"),
        *("--min-score", score),
    )
    assert (ran.code, ran.out) == (2, "")
    assert f"min score: expected a score from 0 to 1, found {float(score)}" in ran.err
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_views_are_merged_on_request(command, tmp_path):
    data = write_small(tmp_path, "images", 2)
    random_predictor().save(tmp_path / "m.safetensors")
    flags = ("--model", tmp_path / "m.safetensors", "--precision", "fp32")
    for words, out in (((), "plain"), (("--tta",), "views")):
        ran = command("predict", tmp_path / "images", *flags, *words, "--no-draw", "--out", tmp_path / out)
        assert ran.code == 0, ran.err
    plain, views = (json.loads((tmp_path / out / "predictions.json").read_text()) for out in ("plain", "views"))
    assert max(entry["score"] for entry in views) > max(entry["score"] for entry in plain)
    ran = command("evaluate", "--data", data, *flags, "--tta", "--json", "--results-out", tmp_path / "judged.json")
    assert ran.code == 0, ran.err
    assert [e["bbox"] for e in json.loads((tmp_path / "judged.json").read_text())] == [e["bbox"] for e in views]
    ran = command("evaluate", "--data", data, "--results", tmp_path / "judged.json", "--tta")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "expected --model with --tta, found --results" in ran.err
    ran = command("predict", tmp_path / "images", *flags, "--tta", "--compile", "--out", tmp_path / "o")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "expected a network in PyTorch that is not compiled" in ran.err


@pytest.mark.slow
def test_large_images_are_cut_into_tiles(command, tmp_path):
    data = write_small(tmp_path, "images", 2)
    replace(random_predictor(), provenance={SHORT_SIDE: 64}).save(tmp_path / "m.safetensors")
    flags = ("--model", tmp_path / "m.safetensors", "--precision", "fp32", "--tiles", 40, "--overlap", 16)
    ran = command(
        "predict",
        tmp_path / "images",
        *flags,
        "--geojson",
        "--table",
        tmp_path / "t.csv",
        "--out",
        tmp_path / "o",
        "--min-score",
        0.1,
    )
    assert ran.code == 0, ran.err
    assert ran.err.count("note: the network sees objects in tiles of 40 pixels 1.6 times as large") == 1
    found = json.loads((tmp_path / "o" / "predictions.json").read_text())
    outlined = [json.loads((tmp_path / "o" / f"{name}.geojson").read_text())["features"] for name in (0, 1)]
    assert 0 < sum(map(len, outlined)) <= sum(entry["score"] >= 0.1 for entry in found)
    assert {tuple(entry["segmentation"]["size"]) for entry in found} == {(64, 80)}
    assert max(entry["bbox"][0] for entry in found) > 40
    assert len(list((tmp_path / "o").glob("*.png"))) == 2
    judged = tmp_path / "judged.json"
    ran = command("evaluate", "--data", data, *flags, "--json", "--results-out", judged)
    assert ran.code == 0, ran.err
    assert [e["bbox"] for e in json.loads(judged.read_text())] == [e["bbox"] for e in found]
    tiles, limit = len(Tiling(40, 16).tiles((64, 80))), random_predictor().config.model.detect.max_detections
    assert json.loads(ran.out)["max_detections"] == tiles * limit


def test_a_flag_for_reading_without_a_data_set_is_one_line(command, tmp_path):
    write_small(tmp_path, "images", 1)
    words = ("predict", tmp_path / "images", "--model", tmp_path / "m", "--out", tmp_path / "o")
    for flag in (("--split", "val"), ("--class-attribute", "type")):
        ran = command(*words, *flag)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == f"error: {flag[0]} says how to read --data, which is missing\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--overlap", 16), "--overlap belongs to --tiles, which is missing"),
        (("--tiles", 8), "tiles: expected a side of 32 pixels or more, found 8"),
        (("--tiles", 64, "--overlap", 64), "overlap of tiles: expected 2 to 63 pixels, found 64"),
    ],
)
def test_tiles_that_cannot_be_are_one_line(command, tmp_path, words, message):
    data = write_small(tmp_path, "images", 1)
    random_predictor().save(tmp_path / "m.safetensors")
    flags = ("--model", tmp_path / "m.safetensors", *words)
    for arguments in (("predict", tmp_path / "images", "--out", tmp_path / "o"), ("evaluate", "--data", data)):
        ran = command(*arguments, *flags)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.splitlines()[-1] == f"error: {message}"


def write_clip(path, count=6):
    import av

    _, images = small_coco(count)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.slow
def test_a_video_is_tracked(command, tmp_path):
    clip = write_clip(tmp_path / "Clip.MP4")
    random_predictor().save(tmp_path / "m.safetensors")
    flags = ("predict", clip, "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o", "--min-score", 0.3)
    ran = command(*flags, "--every", 2, "--batch-size", 2, "--json")
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert (summary["frames"], summary["fault"], summary["video"]) == (3, None, str(tmp_path / "o" / "Clip.mp4"))
    entries = json.loads((tmp_path / "o" / "predictions.json").read_text())
    assert {entry["image_id"] for entry in entries} == {1, 3, 5}
    assert len({entry["track_id"] for entry in entries} - {None}) == summary["tracks"] > 0
    ran = command(*flags, "--no-draw", "--tta")
    assert ran.code == 0, ran.err
    assert "tracks in 6 frames" in ran.out
    ran = command(*flags, "--tracker", "bytetrack", "--json")
    assert ran.code == 0, ran.err
    entries = json.loads((tmp_path / "o" / "predictions.json").read_text())
    assert not any(entry["track_id"] for entry in entries if entry["image_id"] == 1)  # unlike tracks of masks
    assert len({entry["track_id"] for entry in entries} - {None}) == json.loads(ran.out)["tracks"] > 0
    for words, message in (
        (("--tiles", 64), "--tiles is for images, and"),
        (("--table", tmp_path / "t.csv"), "--table is for images, and"),
        (("--every", 0), "--every: expected 1 or more, found 0"),
        (("--overlap", 8), "--overlap is for images, and"),
    ):
        ran = command(*flags, *words)
        assert (ran.code, ran.out) == (2, "")
        assert message in ran.err.splitlines()[-1]


def test_videos_that_cannot_be_are_one_line(command, tmp_path):
    (tmp_path / "a.mp4").write_bytes(write_clip(tmp_path / "whole.mp4").read_bytes()[:900])
    write_small(tmp_path, "images", 1)
    random_predictor().save(tmp_path / "m.safetensors")
    for words, message in (
        ((tmp_path / "a.mp4",), "a.mp4: the video cannot be decoded"),
        ((tmp_path / "none.mp4",), "none.mp4: expected a video, found no such file"),
        ((tmp_path / "images", "--every", 2), "--every belongs to a video"),
        ((tmp_path / "images", "--tracker", "bytetrack"), "--tracker belongs to a video"),
        ((tmp_path / "images", tmp_path / "whole.mp4"), "expected images or one video, found 2 paths"),
    ):
        ran = command("predict", *words, "--model", tmp_path / "m.safetensors", "--out", tmp_path / "o")
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert message in ran.err

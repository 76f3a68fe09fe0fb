from __future__ import annotations

import json
import shlex

import pytest

from maskrcnn.data.shapes import KEYPOINTS
from maskrcnn.predict import load

BOTH = {"masks", "boxes"}


@pytest.mark.parametrize(
    ("flags", "judged", "named"),
    [
        pytest.param((), BOTH, (), marks=pytest.mark.slow),
        (("--keypoints",), BOTH | {"keypoints"}, KEYPOINTS),
    ],
)
def test_the_whole_job_in_small(command, tmp_path, flags, judged, named):
    out = tmp_path / "my [demo]"
    small = ("--images", 8, "--val-images", 2, "--size", 64, "--steps", 1)
    ran = command("demo", "--out", out, *small, "--json", *flags)
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out)
    suggested = [shlex.split(line) for line in ran.err.splitlines() if line.startswith("  maskrcnn ")]
    model, data = str(out / "run" / "model.safetensors"), str(out / "val.json")
    pictures = ["--out", str(out / "pictures")]
    assert suggested[0] == ["maskrcnn", "predict", "--model", model, str(out / "val"), *pictures]
    assert suggested[1] == ["maskrcnn", "evaluate", "--model", model, "--data", data]
    assert {kind for kind in ("masks", "boxes", "keypoints") if figures.get(kind)} == judged
    for name in ("train.json", "val.json", "run/curves.png", "contact_sheet.png"):
        assert (out / name).exists()
    config = load(out / "run" / "model.safetensors").config
    assert {category.keypoints for category in config.categories} == {named}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--steps", 0), "train.steps must be"),
        (("--images", 0), "expected 1 or more images"),
        (("--size", 1 << 70), "found count 1000 and size 1180591620717411303424"),
        (("--out", __file__), "expected a folder to write to, found a file"),
    ],
)
def test_what_cannot_be_made_is_refused_before_any_work(command, tmp_path, flags, message):
    ran = command("demo", "--out", tmp_path / "out", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert not (tmp_path / "out").exists()

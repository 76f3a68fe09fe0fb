from __future__ import annotations

import json
import os
import shlex
from signal import SIGTERM

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
    assert ran.err.startswith(f"drawing 10 images of shapes in {out}\n")
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


SMALL = ("--images", 8, "--val-images", 2, "--size", 64)


@pytest.mark.parametrize("place", ["data.shapes.write_shapes", "training.loop.train", "training.evaluate.evaluate"])
def test_an_interrupted_demo_says_how_to_continue_wherever_it_was(command, tmp_path, monkeypatch, place):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"maskrcnn.{place}", interrupted)
        ran = command("demo", "--out", tmp_path / "out", *SMALL, "--steps", 1)
    assert (ran.code, ran.err.splitlines()[-1]) == (130, f"interrupted; the same command continues in {tmp_path}/out")


def test_another_demo_in_the_folder_of_an_interrupted_one_is_refused(command, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("maskrcnn.training.evaluate.evaluate", lambda *args, **settings: os.kill(os.getpid(), SIGTERM))
        assert command("demo", "--out", tmp_path / "out", *SMALL, "--steps", 2).code == 130
    ran = command("demo", "--out", tmp_path / "out", *SMALL, "--steps", 1)
    assert ran.code == 2
    assert "train.steps was 2 and is 1; give the flags with which this demo began, or choose another --out" in ran.err
    assert "--resume-with-changes" not in ran.err

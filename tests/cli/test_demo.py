from __future__ import annotations

import json

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
    small = ("--images", 8, "--val-images", 2, "--size", 64, "--steps", 1)
    ran = command("demo", "--out", tmp_path, *small, "--json", *flags)
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out)
    assert {kind for kind in ("masks", "boxes", "keypoints") if figures.get(kind)} == judged
    for name in ("train.json", "val.json", "run/curves.png", "contact_sheet.png"):
        assert (tmp_path / name).exists()
    config = load(tmp_path / "run" / "model.safetensors").config
    assert {category.keypoints for category in config.categories} == {named}

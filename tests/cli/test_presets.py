from __future__ import annotations

import json

import pytest

from maskrcnn.config.presets import PRESETS


@pytest.mark.slow
def test_all_presets_with_their_cost(command):
    ran = command("presets")
    assert ran.code == 0
    header, *rows = ran.out.splitlines()
    assert header.split() == ["preset", "parameters", "GFLOPs"]
    assert [row.split()[0] for row in rows] == list(PRESETS)
    assert all(float(row.split()[3]) > 0 for row in rows)


def test_json_of_one(command):
    ran = command("presets", "mask_rcnn_R_50_FPN", "--json")
    found = json.loads(ran.out)
    assert list(found) == ["mask_rcnn_R_50_FPN"]
    assert found["mask_rcnn_R_50_FPN"]["parameters"] == 44_343_216
    assert found["mask_rcnn_R_50_FPN"]["use"].startswith("ResNet-50-FPN")


def test_an_unknown_preset(command):
    ran = command("presets", "mask_rcnn_R_51_FPN")
    assert (ran.code, ran.out) == (2, "")
    assert "mask_rcnn_R_50_FPN" in ran.err

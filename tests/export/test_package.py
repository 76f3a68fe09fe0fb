"""The operators of a package of PyTorch beside ours, and packages that are refused. `tests/examples` runs one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.exc import InvalidCxxCompiler

import maskrcnn
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.export import package
from maskrcnn.export.limits import require_exportable
from maskrcnn.export.save import export_model
from maskrcnn.ops import roi_align as ours
from maskrcnn.ops.nms import nms
from maskrcnn.predict.exported import exported_format
from small_network import lively_network, network_config
from variants import VARIANTS


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_one_suppression_of_all_lists_keeps_what_one_of_each_keeps(share: float, with_labels: bool) -> None:
    torch.manual_seed(0)
    corners = 100 * torch.rand(3, 40, 2) - 20
    boxes = torch.cat([corners, corners + 60 * torch.rand(3, 40, 2)], 2)
    valid = torch.rand(3, 40) < share
    labels = torch.randint(0, 4, (3, 40)) if with_labels else None
    found = package.nms(boxes, valid, 0.4, labels)
    assert torch.equal(found, nms(boxes, valid, 0.4, labels))
    assert bool(found.any()) == (share > 0)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("rois", [0, 30])
def test_rois_of_all_levels_come_back_in_their_order(rois: int, aligned: bool, sampling_ratio: int) -> None:
    torch.manual_seed(0)
    features = [torch.rand(2, 4, side, side) for side in (24, 12, 6)]
    corners = 60 * torch.rand(rois, 2)
    boxes = torch.cat([corners, corners + 1 + 40 * torch.rand(rois, 2)], 1)
    image, level = torch.randint(0, 2, (rois,)), torch.randint(0, 2, (rois,))  # none on the last level
    found = package.roi_align(features, boxes, image, level, [4.0, 8.0, 16.0], 7, sampling_ratio, aligned)
    settings = {"output_size": 7, "sampling_ratio": sampling_ratio, "aligned": aligned}
    expected = ours.roi_align(features, boxes, image, level, strides=[4, 8, 16], **settings)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_convolutions_on_rois_are_compiled_for_the_layout_that_they_have(tmp_path: Path) -> None:
    """The last stage of a C4 network runs on RoIs. With its channels-last weights, 99 of 100 objects were wrong."""
    config = network_config(**VARIANTS["C4"])
    found = export_model(lively_network(config).eval(), config, {}, tmp_path / "m.pt2", "torch")
    assert found.objects > 100


@pytest.mark.parametrize(
    ("settings", "asked", "part"),
    [
        (VARIANTS["keypoints"], {}, "keypoints"),
        ({}, {"masks": "runs"}, "--masks runs"),
        ({}, {"masks": "dense"}, "--masks dense"),
        ({}, {"resize": True}, "--with-resize"),
        ({}, {"int8": True}, "--precision int8"),
    ],
)
def test_what_a_package_lacks_is_refused(settings: dict[str, Any], asked: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=f"a package of --format torch has no {part}.*: choose --format onnx"):
        require_exportable(network_config(**settings), "torch", **asked)


def test_without_a_compiler_there_is_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(package, "get_cpp_compiler", missing)
    config = network_config()
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler, and g\+\+ is missing: apt-get install g\+\+"):
        export_model(lively_network(config), config, {}, tmp_path / "m.pt2", "torch")
    assert list(tmp_path.iterdir()) == []


def archive(path: Path, entries: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, text in entries.items():
            file.writestr(name, text)
    return path


def test_a_package_is_loaded_only_if_this_version_knows_it(tmp_path: Path) -> None:
    place = "m/data/aotinductor/model/code.wrapper"
    known = {f"{place}.json": "{}", f"{place}_metadata.json": json.dumps({"maskrcnn": '{"format": 99, "config": {}}'})}
    newer = archive(tmp_path / "newer.pt2", known)
    assert exported_format(newer) == "torch"
    with pytest.raises(WeightsError, match=r"newer\.pt2: found model file format 99, .*upgrade maskrcnn"):
        maskrcnn.load(newer)
    other = archive(tmp_path / "other.pt2", {"m/models/model.json": "{}", "m/archive_format": "pt2"})
    with pytest.raises(WeightsError, match=r"other\.pt2: expected a package .* with models/model\.json, arch"):
        maskrcnn.load(other)
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(newer.read_bytes()[:-30])
    with pytest.raises(WeightsError, match=r"cut\.pt2: expected a whole exported network"):
        maskrcnn.load(cut)
    with pytest.raises(ConfigError, match="computes in fp32"):
        maskrcnn.load(newer, precision="bf16")
    renamed = newer.rename(tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth: .*a package of torch\.export"):
        maskrcnn.load(renamed)

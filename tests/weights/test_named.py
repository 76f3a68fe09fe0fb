"""The table of published models, and what a source of weights stands for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision.models as models

import maskrcnn
from maskrcnn.errors import WeightsError
from maskrcnn.files.fetch import fetch
from maskrcnn.weights import named
from maskrcnn.weights.named import NamedWeights, initial_file, is_named, local_file, named_weights
from maskrcnn.weights.shipped import SHIPPED

MASK_3X = "detectron2/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"


def test_the_table_is_whole() -> None:
    table = named_weights()
    assert len(table) >= 60
    assert {name.split("/")[0] for name in table} == {"torchvision", "detectron2", "mmdetection"}
    assert len({entry.url for entry in table.values()}) == len(table)
    for name, entry in table.items():
        assert re.fullmatch(r"[\w-]+(/[\w-]+)+", name)
        assert entry.name == name
        assert re.fullmatch(r"https://[\w./-]+\.(pth|pkl)", entry.url), entry
        assert entry.licence
        assert all(20 < ap < 70 for ap in (entry.box_ap, entry.mask_ap, entry.keypoint_ap) if ap is not None)


def test_torchvisions_rows_are_torchvisions_own_figures() -> None:
    ours = [entry for entry in named_weights().values() if entry.name.startswith("torchvision/")]
    assert len(ours) == 5
    for entry in ours:
        theirs = models.get_model_weights(entry.name.removeprefix("torchvision/"))["COCO_V1"]
        figures = theirs.meta["_metrics"]["COCO-val2017"]
        assert entry.url == theirs.url
        assert entry.megabytes == theirs.meta["_file_size"]
        assert entry.box_ap == figures["box_map"]
        assert entry.mask_ap == figures.get("mask_map")
        assert entry.keypoint_ap == figures.get("kp_map")


def test_published_figures() -> None:
    """Spot checks against the papers' repositories."""
    table = named_weights()
    assert (table[MASK_3X].box_ap, table[MASK_3X].mask_ap) == (41.0, 37.2)
    assert table[MASK_3X].url.endswith("/137849600/model_final_f10217.pkl")
    assert (
        table["mmdetection/mask_rcnn_r50_fpn_1x_coco"].box_ap,
        table["mmdetection/mask_rcnn_r50_fpn_1x_coco"].mask_ap,
    ) == (38.2, 34.7)
    assert table["detectron2/COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x"].keypoint_ap == 65.5


def test_names_and_addresses_are_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def download(url: str) -> Path:
        asked.append(url)
        return tmp_path / "file"

    monkeypatch.setattr(named, "fetch", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert local_file(MASK_3X) == tmp_path / "file"
    assert local_file("https://example.org/a.pth") == tmp_path / "file"
    assert asked == [named_weights()[MASK_3X].url, "https://example.org/a.pth"]
    # What torch has downloaded is not downloaded again, where the name tells that it is the same file.
    (tmp_path / "checkpoints").mkdir()
    for name in ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "model_final_f10217.pkl"):
        (tmp_path / "checkpoints" / name).touch()
    assert local_file("torchvision/maskrcnn_resnet50_fpn").parent == tmp_path / "checkpoints"
    assert local_file(MASK_3X) == tmp_path / "file"


def test_files_come_first_and_paths_stay_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("torchvision").mkdir()
    Path("torchvision/maskrcnn_resnet50_fpn").touch()
    assert local_file("torchvision/maskrcnn_resnet50_fpn") == Path("torchvision/maskrcnn_resnet50_fpn")
    assert local_file("no/such.pth") == Path("no/such.pth")  # whoever opens it says that it is missing
    assert not is_named("resnet50")


def test_a_shipped_model_lies_in_the_package_whatever_folder_has_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nuclei").mkdir()
    for name in SHIPPED:
        for found in (local_file(name), initial_file(name)):
            assert found.parent == Path(maskrcnn.__file__).parent / "weights" / "shipped_models"
            assert found.stat().st_size <= 12_000_000
    Path("nuclei").rmdir()
    Path("nuclei").touch()
    assert local_file("nuclei") == Path("nuclei")  # a file of the user comes first
    with pytest.raises(WeightsError, match="nearest: nuclei"):
        local_file("nucleus")


def test_a_wrong_name_is_told_the_nearest() -> None:
    with pytest.raises(
        WeightsError,
        match=r"neither a file, nor a folder of OpenVINO, nor a named model; nearest: .*mask_rcnn_R_50_FPN_3x",
    ):
        local_file("mask_rcnn_R50_FPN_3x")
    with pytest.raises(WeightsError, match=r"nearest: torchvision/maskrcnn_resnet50_fpn"):
        local_file("torchvision/maskrcnn_resnet_fpn")
    with pytest.raises(
        WeightsError, match=r"neither a file, nor a folder of OpenVINO, nor a named model; `maskrcnn weights list`"
    ):
        local_file("zzz")
    with pytest.raises(WeightsError, match=r"^s3://bucket/m\.pth: expected a file, or an address that"):
        local_file("s3://bucket/m.pth")
    assert named.fetch is fetch


def test_the_page_of_published_models_is_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "published.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [row_of(entry) for entry in named_weights().values()]


def row_of(entry: NamedWeights) -> str:
    figures = (entry.box_ap, entry.mask_ap, entry.keypoint_ap)
    cells = " | ".join("" if value is None else f"{value:.1f}" for value in figures)
    return f"| `{entry.name}` | {cells} | `{entry.evaluate_line}` |"

"""Whole models of torchvision beside their imports, on the same images, and beside exports that torchvision opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator

from maskrcnn.benchmark.pair import SPREAD, enliven
from maskrcnn.data.shapes import draw_shapes
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.predict import Predictor, TorchBackend, load
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.frameworks.torchvision.layout import class_rows
from torchvision_copy import SPREAD_KEYPOINT

pytestmark = pytest.mark.slow

# More detections than there are: the best of all 91 rows would not be those of the 80 that we find.
SETTINGS = {"min_size": 96, "max_size": 160, "box_detections_per_img": 5000, "rpn_post_nms_top_n_test": 40}


def image(seed: int = 0) -> np.ndarray:
    """(100, 144, 3) uint8."""
    return np.ascontiguousarray(draw_shapes(144, np.random.default_rng(seed))[0][:100])


def as_float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255


def build(kind: Callable[..., nn.Module], classes: int, hidden: int = 256) -> nn.Module:
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    model = kind(backbone, num_classes=classes, **SETTINGS).eval()
    if kind is MaskRCNN:
        model.roi_heads.mask_predictor = MaskRCNNPredictor(256, hidden, classes)  # type: ignore[union-attr]
    return model


def lively(kind: Callable[..., nn.Module], classes: int, eps: float, hidden: int = 256) -> nn.Module:
    """A model of torchvision that finds many objects, with frozen norms whose epsilon matters.

    Args:
        hidden: channels of the transposed convolution of the masks.
    """
    torch.manual_seed(0)
    model = build(kind, classes, hidden)
    enliven(model, [as_float(image())], SPREAD if kind is MaskRCNN else SPREAD_KEYPOINT)
    block = model.backbone.body.layer1[0]  # type: ignore[union-attr, index]
    block.conv1.weight.data *= 0.01  # type: ignore[union-attr, operator]
    block.bn1.running_mean *= 0.01  # type: ignore[union-attr, operator]
    block.bn1.running_var *= 0.0001  # type: ignore[union-attr, operator]
    overwrite_eps(model, eps)
    return model


def detections(model: nn.Module) -> dict[str, Tensor]:
    with torch.no_grad():
        return model([as_float(image())])[0]


@pytest.mark.parametrize(
    ("kind", "classes", "eps", "hidden"),
    [
        (MaskRCNN, 91, 0.0, 256),
        (MaskRCNN, 91, 1e-5, 256),
        (KeypointRCNN, 2, 0.0, 256),
        (MaskRCNN, 4, 1e-5, 256),
        (MaskRCNN, 4, 1e-5, 96),
    ],
)
def test_the_import_finds_what_torchvision_finds(
    kind: Callable[..., nn.Module], classes: int, eps: float, hidden: int
) -> None:
    """Scores of 91 rows, of which ten are never found, and both epsilons; without a choice the usual one is taken."""
    theirs = lively(kind, classes, eps, hidden)
    settings = dict(SETTINGS) if (classes, eps) != (91, 1e-5) else {**SETTINGS, "norm_eps": 1e-5}
    found = Torchvision().import_checkpoint(Checkpoint("torch", theirs.state_dict(), {}, ()), settings)
    network = build_model(found.config)
    network.load_state_dict(found.state)
    agree(Predictor(TorchBackend(network.eval()), found.config), theirs, all_rows=classes != 91)


def test_a_network_that_was_saved_whole_finds_what_torchvision_finds(tmp_path: Path) -> None:
    """Its own epsilon, anchors and thresholds are followed, without any config."""
    theirs = lively(MaskRCNN, 4, 1e-4)
    theirs.rpn.anchor_generator = AnchorGenerator(((16,), (24,), (40,), (64,), (96,)), ((0.5, 1.0, 2.0),) * 5)
    theirs.roi_heads.score_thresh = 0.2  # type: ignore[union-attr, assignment]
    torch.save({"epoch": 3, "net": theirs}, tmp_path / "whole.pt")
    agree(load(tmp_path / "whole.pt", "cpu", precision="fp32"), theirs, all_rows=True)


def agree(model: Predictor, theirs: nn.Module, *, all_rows: bool) -> None:
    """Compares the detections of both on one image. `all_rows`: every row of torchvision is a category of ours."""
    ours = model.predict(image())[0]
    rows, _ = class_rows(model.config)
    expected = {name: value.numpy() for name, value in detections(theirs).items()}
    kept = np.isin(expected["labels"], rows)
    assert kept.all() == all_rows
    assert len(ours) == kept.sum() > 20
    labels = np.array(rows)[ours.labels]
    free = np.ones(len(ours), dtype=bool)
    for i in np.flatnonzero(kept):
        distance = np.abs(ours.boxes - expected["boxes"][i]).max(1) + 1e6 * ~(free & (labels == expected["labels"][i]))
        match = int(distance.argmin())
        free[match] = False
        assert distance[match] < 0.01
        assert abs(ours.scores[match] - expected["scores"][i]) < 1e-4
        if ours.keypoints is not None:
            np.testing.assert_allclose(ours.keypoints[match][:, :2], expected["keypoints"][i][:, :2], atol=0.05)
        if ours.masks is not None:
            theirs_mask, mask = expected["masks"][i, 0] > 0.5, ours.masks.dense()[match]
            assert (theirs_mask ^ mask).sum() <= max(2, 0.002 * (theirs_mask | mask).sum())


@pytest.mark.parametrize(("kind", "classes"), [(MaskRCNN, 91), (KeypointRCNN, 2)])
def test_torchvision_opens_the_export_and_finds_the_same(kind: Callable[..., nn.Module], classes: int) -> None:
    theirs = lively(kind, classes, 0.0)
    found = Torchvision().import_checkpoint(Checkpoint("torch", theirs.state_dict(), {}, ()), SETTINGS)
    again = build(kind, classes)
    again.load_state_dict(Torchvision().export_state(found.config, found.state), strict=True)
    overwrite_eps(again, 0.0)
    before, after = detections(theirs), detections(again)
    # Boxes and masks of the ids without a category are not kept, so that those are not the same.
    rows = torch.tensor(class_rows(found.config)[0])
    before, after = (
        {name: value[torch.isin(one["labels"], rows)] for name, value in one.items()} for one in (before, after)
    )
    assert len(before["labels"]) > 20
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

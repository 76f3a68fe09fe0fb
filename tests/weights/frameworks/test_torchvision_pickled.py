"""Networks of torchvision that were saved whole: their settings are followed, and nothing of them is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from maskrcnn.config import Config, ResNetConfig
from maskrcnn.errors import ConfigError
from maskrcnn.files.checkpoint import read_checkpoint
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.open import open_weights

CHANNELS = 8
ARGUMENTS = {
    "min_size": (120, 160),
    "max_size": 260,
    "image_mean": (0.5, 0.25, 0.125),
    "image_std": (0.25, 0.5, 1.0),
    "rpn_pre_nms_top_n_train": 900,
    "rpn_pre_nms_top_n_test": 800,
    "rpn_post_nms_top_n_train": 700,
    "rpn_post_nms_top_n_test": 600,
    "rpn_nms_thresh": 0.6,
    "rpn_fg_iou_thresh": 0.65,
    "rpn_bg_iou_thresh": 0.25,
    "rpn_batch_size_per_image": 128,
    "rpn_positive_fraction": 0.4,
    "box_score_thresh": 0.3,
    "box_nms_thresh": 0.45,
    "box_detections_per_img": 70,
    "box_fg_iou_thresh": 0.55,
    "box_batch_size_per_image": 256,
    "box_positive_fraction": 0.2,
    "bbox_reg_weights": (9.0, 8.0, 4.0, 3.0),
}


def pool(side: int, samples: int = 2) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(["0", "1", "2", "3"], side, samples)


def network(**arguments: Any) -> MaskRCNN:
    """A narrow Mask R-CNN of three classes with the background."""
    layers = {f"layer{stage}": str(stage - 1) for stage in range(1, 5)}
    body = resnet18(weights=None, norm_layer=FrozenBatchNorm2d)
    return MaskRCNN(
        BackboneWithFPN(body, layers, [64, 128, 256, 512], CHANNELS),
        **{
            "box_head": TwoMLPHead(CHANNELS * 49, 16),
            "box_predictor": FastRCNNPredictor(16, 3),
            "mask_head": MaskRCNNHeads(CHANNELS, (CHANNELS,) * 4, 1),
            "mask_predictor": MaskRCNNPredictor(CHANNELS, CHANNELS, 3),
            **arguments,
        },
    )


def saved(model: nn.Module, folder: Path) -> tuple[Config, dict[str, Any]]:
    """The config and the provenance of a network that was saved whole."""
    torch.save(model, folder / "w.pt")
    _, config, provenance = open_weights(folder / "w.pt")
    return config, provenance


def test_every_setting_of_the_constructors_is_followed(tmp_path: Path) -> None:
    sizes = ((8,), (16,), (32,), (64,), (128,))
    model = network(rpn_anchor_generator=AnchorGenerator(sizes, ((0.4, 1.0, 2.5),) * 5), **ARGUMENTS)
    overwrite_eps(model, 0.0)
    found, provenance = saved(nn.DataParallel(model), tmp_path)
    torch.save(model.state_dict(), tmp_path / "state.pth")
    settings = {**ARGUMENTS, "sizes": sizes, "aspect_ratios": ((0.4, 1.0, 2.5),) * 5, "norm_eps": 0.0}
    assert found == Torchvision().import_checkpoint(read_checkpoint(tmp_path / "state.pth"), settings).config
    assert isinstance(found.model.backbone, ResNetConfig)
    assert found.model.backbone.norm_eps == 0
    assert found.model.anchors.sizes[0] == (8.0,)
    assert found.image.short_side == 160
    assert not any("defaults" in sentence or "epsilon" in sentence for sentence in provenance["assumed"])


@pytest.mark.slow
def test_the_pooler_the_padding_and_the_epsilon_are_followed(tmp_path: Path) -> None:
    model = network(box_roi_pool=pool(7, 3), mask_roi_pool=pool(10, 3))
    model.transform.size_divisible = 64
    overwrite_eps(model, 1e-4)
    found, _ = saved(model, tmp_path)
    assert found.model.rois.sampling_ratio == 3
    assert found.model.mask_head is not None
    assert found.model.mask_head.resolution == 10
    assert found.image.divisor == 64
    assert isinstance(found.model.backbone, ResNetConfig)
    assert found.model.backbone.norm_eps == 1e-4


def test_the_resolution_of_keypoints_is_followed(tmp_path: Path) -> None:
    box = {"box_head": TwoMLPHead(CHANNELS * 49, 16), "box_predictor": FastRCNNPredictor(16, 2)}
    model = KeypointRCNN(
        network().backbone,
        **box,
        keypoint_roi_pool=pool(10),
        keypoint_head=KeypointRCNNHeads(CHANNELS, (CHANNELS,) * 8),
        keypoint_predictor=KeypointRCNNPredictor(CHANNELS, 4),
    )
    found, _ = saved(model, tmp_path)
    assert found.model.keypoint_head is not None
    assert found.model.keypoint_head.resolution == 10


class Detector(MaskRCNN):
    """A user's own class. The file does not hold its code."""


def test_other_classes_are_named_as_an_assumption(tmp_path: Path) -> None:
    model = network()
    model.__class__ = Detector
    _, provenance = saved(model, tmp_path)
    assert (
        f"{__name__}.Detector compute what torchvision's modules in their places do; no code was read"
        in (provenance["assumed"])
    )


def other_ratio(model: MaskRCNN) -> None:
    model.roi_heads.mask_roi_pool.sampling_ratio = 4


def one_other_epsilon(model: MaskRCNN) -> None:
    model.backbone.body.bn1.eps = 1e-3


def epsilon_in_words(model: MaskRCNN) -> None:
    model.backbone.body.bn1.eps = "small"


def dilated(model: MaskRCNN) -> None:
    model.backbone.body.layer4[1].conv1.dilation = (2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model.transform, "fixed_size", (64, 64)), r"transform\.fixed_size \(64, 64\)"),
        (lambda model: setattr(model.rpn, "score_thresh", 0.2), r"rpn\.score_thresh 0\.2"),
        (lambda model: setattr(model.rpn.box_coder, "weights", (2.0, 2.0, 1.0, 1.0)), r"rpn\.box_coder\.weights"),
        (lambda model: setattr(model.roi_heads.box_roi_pool, "featmap_names", ["0", "1"]), "on the levels"),
        (other_ratio, "another sampling_ratio in mask_roi_pool"),
        (one_other_epsilon, "norms with epsilons 1e-05 to 0.001"),
        (epsilon_in_words, "a value of an unexpected kind"),
        (dilated, r"convolutions with dilation \(2, 2\)"),
    ],
)
def test_settings_that_our_networks_do_not_have_are_refused(
    change: Callable[[MaskRCNN], None], message: str, tmp_path: Path
) -> None:
    model = network()
    change(model)
    with pytest.raises(ConfigError, match=rf"w\.pt: .*{message}"):
        saved(model, tmp_path)

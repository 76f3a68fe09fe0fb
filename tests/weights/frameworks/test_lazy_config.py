"""Detectron2's LazyConfigs: Python that is read as data, and the YAML that a training writes of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from maskrcnn.config import ResNetConfig
from maskrcnn.errors import ConfigError
from maskrcnn.weights.frameworks.detectron2 import Detectron2
from maskrcnn.weights.open import open_weights
from small_network import lively_network, network_config

MODEL = """
from detectron2.config import LazyCall as L
from detectron2.modeling import GeneralizedRCNN, RPN
from ..numbers import constants, strides

model = L(GeneralizedRCNN)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),
        ),
        in_features="${.bottom_up.out_features}",
        top_block=L(LastLevelMaxPool)(),
    ),
    proposal_generator=L(RPN)(
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[32], [64], [128], [256], [512]], aspect_ratios=[0.5, 1.0, 2.0], strides=strides, offset=0.0
        ),
        anchor_matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1]),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256, positive_fraction=0.5,
        pre_nms_topk=(2000, 1000), post_nms_topk=(1000, 900), nms_thresh=0.7,
    ),
    roi_heads=L(StandardROIHeads)(
        num_classes=3, batch_size_per_image=512, positive_fraction=0.25,
        proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1]),
        box_pooler=L(ROIPooler)(output_size=7, scales=(1 / 4, 1 / 8), sampling_ratio=0, pooler_type="ROIAlignV2"),
        box_predictor=L(FastRCNNOutputLayers)(
            input_shape=ShapeSpec(channels=1024), test_score_thresh=0.05,
            box2box_transform=L(Box2BoxTransform)(weights=(10, 10, 5, 5)), num_classes="${..num_classes}",
        ),
        mask_pooler=L(ROIPooler)(output_size=14, scales=(1 / 4, 1 / 8), sampling_ratio=0, pooler_type="ROIAlignV2"),
        mask_head=L(MaskRCNNConvUpsampleHead)(num_classes="${..num_classes}", conv_dims=[256] * 5),
    ),
    pixel_mean=constants["mean"], pixel_std=[1.0, 1.0, 1.0], input_format="BGR",
)
"""
DATA = """
dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    mapper=L(DatasetMapper)(augmentations=[
        L(T.ResizeShortestEdge)(short_edge_length=(640, 800), max_size=1333), L(T.RandomFlip)(horizontal=True)]),
    total_batch_size=16,
)
dataloader.test = L(build_detection_test_loader)(
    mapper=L(DatasetMapper)(augmentations=[L(T.ResizeShortestEdge)(short_edge_length=600, max_size=1000)]),
)
def schedule(steps):
    return [step for step in steps]
lr_multiplier = schedule(open("/etc/passwd").read())
"""
OWN = """
from ..common.models.small import model
from ..common.data import dataloader, lr_multiplier
from ..common.optim import SGD as optimizer

model.backbone.bottom_up.freeze_at = 2
model["roi_heads"].box_predictor.test_score_thresh = 0.3
optimizer.lr = compute(3)
"""


def files(folder: Path, own: str = OWN, model: str = MODEL.replace("[256] * 5", "[256]")) -> Path:
    """A config with the files of Detectron2 that it imports, in the folders of its checkout."""
    for name, text in {
        "project/own.py": own,
        "common/models/small.py": model,
        "common/data.py": DATA,
        "common/numbers.py": "constants = dict(mean=[103.53, 116.28, 123.675])\nstrides = [4, 8, 16, 32, 64]\n",
    }.items():
        path = folder / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "configs/project/own.py"


EXPECTED: dict[str, Any] = {
    "MODEL.MASK_ON": True,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 900,
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.3,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10, 10, 5, 5],
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "TEST.DETECTIONS_PER_IMAGE": 100,
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TRAIN": [640, 800],
    "INPUT.MIN_SIZE_TEST": 600,
    "INPUT.MAX_SIZE_TEST": 1000,
    "INPUT.RANDOM_FLIP": "horizontal",
}


def test_a_config_and_what_it_imports_are_data(tmp_path: Path) -> None:
    found = Detectron2().read_settings(files(tmp_path))
    assert {name: found.get(name) for name in EXPECTED} == EXPECTED


def test_a_constructor_has_its_own_defaults(tmp_path: Path) -> None:
    """They differ from those of the other configs."""
    short = MODEL.replace(", offset=0.0", "").replace("stride_in_1x1=True, ", "").replace("[256] * 5", "[256]")
    found = Detectron2().read_settings(files(tmp_path, "from ..common.models.small import model", short))
    assert found["MODEL.ANCHOR_GENERATOR.OFFSET"] == 0.5
    assert found["MODEL.BACKBONE.FREEZE_AT"] == 0
    assert not found["MODEL.RESNETS.STRIDE_IN_1X1"]


def test_the_yaml_that_a_training_writes(tmp_path: Path) -> None:
    tree = {
        "model": {
            "_target_": "detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN",
            "backbone": {"_target_": "detectron2.modeling.ResNet", "stages": {"depth": 101, "stride_in_1x1": True}},
            "proposal_generator": {"_target_": "detectron2.modeling.RPN", "pre_nms_topk": [12000, 6000]},
            "roi_heads": {"_target_": "detectron2.modeling.roi_heads.Res5ROIHeads", "pooler": {"output_size": 14}},
        }
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    found = Detectron2().read_settings(tmp_path / "config.yaml")
    assert found["MODEL.RESNETS.DEPTH"] == 101
    assert found["MODEL.RPN.PRE_NMS_TOPK_TEST"] == 6000
    assert found["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"] == 14


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("from ..common.other import model", r"imports model from .*other\.py, and there is no such file"),
        (OWN + "model.roi_heads.update(num_classes=5)", r"own\.py, line 9: expected data .*update.*which is not run"),
        (OWN + "for k in (1, 2):\n    model.x = k", "line 9: expected data"),
        (OWN + "model.roi_heads.num_classes = len(NAMES)", r"found 'len\(NAMES\)', which is not run"),
        (
            OWN + "model.backbone.bottom_up = L(RegNet)(depth=3)",
            "model.backbone.bottom_up is RegNet, which is not supported",
        ),
        (OWN + "model.roi_heads._target_ = 'CascadeROIHeads'", "model.roi_heads is CascadeROIHeads.*StandardROIHeads"),
        (
            "model = model_zoo.get_config('common/none.py').model",
            r"configs/common/none\.py, which is in no folder above",
        ),
        ("from .own import model", "its imports lead back to itself"),
        ("train = 3", "with a model, found none"),
        ("model = [", "found no Python"),
        ("model = [1]\n" + "model = model + model\n" * 40, "at most 200,000 values"),
        (OWN + "dataloader.test.mapper.augmentations = 3", "Detectron2"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path: Path, own: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Detectron2().read_settings(files(tmp_path, own))


def test_the_zoo_is_found_above_the_config(tmp_path: Path) -> None:
    own = "model = model_zoo.get_config('common/models/small.py').model\nmodel.roi_heads.num_classes = 7"
    assert Detectron2().read_settings(files(tmp_path, own))["MODEL.ROI_HEADS.NUM_CLASSES"] == 7


def test_a_file_opens_with_its_lazy_config(tmp_path: Path) -> None:
    backbone = ResNetConfig(depth=50, width=8, stem_width=16, stride_in_1x1=True)
    config = network_config(num_classes=3, backbone=backbone)
    torch.save(Detectron2().export_state(config, lively_network(config).state_dict()), tmp_path / "w.pth")
    found = open_weights(tmp_path / "w.pth", files(tmp_path))[1]
    assert (found.image.short_side, found.image.long_side) == (600, 1000)
    assert (found.model.detect.score_threshold, found.model.rpn.post_nms_test) == (0.3, 900)

"""What an MMDetection config may ask for here, and what is taken where a file comes without one.

The sources are MMDetection 3.3's `configs/_base_/models` and the configs of its model zoo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskrcnn.config import ModelConfig, ResNetConfig
from maskrcnn.errors import ConfigError
from maskrcnn.weights.frameworks.mmdetection.config_file import setting, stages

CODER = "DeltaXYWHBBoxCoder"
# Settings that change what is found, by their part, and the values that have a counterpart here. A setting that is
# missing has one: MMDetection's default.
SUPPORTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "model": {"type": ("MaskRCNN", "FasterRCNN", "CascadeRCNN")},
    "model.backbone": {
        "type": ("ResNet", "ResNeXt"),
        "conv_cfg": (),
        "plugins": (),
        "avg_down": (False,),
        "deep_stem": (False,),
        "dcn.type": ("DCN", "DCNv2"),
        "dcn.deform_groups": (1,),
    },
    "model.neck": {
        "type": ("FPN",),
        "conv_cfg": (),
        "act_cfg": (),
        "num_outs": (5,),
        "start_level": (0,),
        "add_extra_convs": (False,),
        "no_norm_on_lateral": (False,),
        "upsample_cfg.mode": ("nearest",),
    },
    "model.rpn_head": {
        "type": ("RPNHead",),
        "loss_cls.use_sigmoid": (True,),
        "bbox_coder.type": (CODER,),
        "bbox_coder.target_means": ([0.0] * 4, (0.0,) * 4),
        "anchor_generator.type": ("AnchorGenerator",),
        "anchor_generator.scale_major": (True,),
        "anchor_generator.centers": (),
    },
    "model.roi_head": {"type": ("StandardRoIHead", "CascadeRoIHead")},
    "model.roi_head.bbox_roi_extractor": {"type": ("SingleRoIExtractor",), "roi_layer.type": ("RoIAlign", "RoIPool")},
    "model.roi_head.mask_roi_extractor": {"type": ("SingleRoIExtractor",), "roi_layer.type": ("RoIAlign", "RoIPool")},
    "model.roi_head.bbox_head": {
        "type": ("BBoxHead", "ConvFCBBoxHead", "Shared2FCBBoxHead", "Shared4Conv1FCBBoxHead"),
        "conv_cfg": (),
        "cls_predictor_cfg.type": ("Linear",),
        "reg_predictor_cfg.type": ("Linear",),
        "loss_cls.use_sigmoid": (False,),
        "bbox_coder.type": (CODER,),
        "bbox_coder.target_means": ([0.0] * 4, (0.0,) * 4),
    },
    "model.roi_head.mask_head": {"type": ("FCNMaskHead",), "conv_cfg": (), "predictor_cfg.type": ("Conv",)},
    "model.test_cfg.rpn": {"nms.type": ("nms",), "nms_across_levels": (False,)},
    "model.test_cfg.rcnn": {"nms.type": ("nms",), "nms.class_agnostic": (False,)},
}
# Settings of training alone, likewise.
LEARNED: dict[str, dict[str, tuple[Any, ...]]] = {
    "model.rpn_head": {
        "loss_cls.type": ("CrossEntropyLoss",),
        "loss_cls.loss_weight": (1,),
        "loss_bbox.type": ("L1Loss", "SmoothL1Loss"),
        "loss_bbox.loss_weight": (1,),
    },
    "model.roi_head.bbox_head": {
        "loss_cls.type": ("CrossEntropyLoss",),
        "loss_cls.loss_weight": (1,),
        "loss_bbox.type": ("L1Loss", "SmoothL1Loss", "GIoULoss"),
        "loss_bbox.loss_weight": (1,),
    },
    "model.roi_head.mask_head": {"loss_mask.type": ("CrossEntropyLoss",), "loss_mask.loss_weight": (1,)},
    "model.train_cfg.rpn": {"assigner.type": ("MaxIoUAssigner",), "sampler.type": ("RandomSampler",)},
    "model.train_cfg.rcnn": {"assigner.type": ("MaxIoUAssigner",), "sampler.type": ("RandomSampler",)},
}
RGB: dict[str, Any] = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
BGR_MEAN = [103.53, 116.28, 123.675]
CAFFE: dict[str, Any] = {"mean": BGR_MEAN, "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False}
CAFFE2: dict[str, Any] = {"mean": BGR_MEAN, "std": [57.375, 57.12, 58.395], "bgr_to_rgb": False}  # ResNeXt 32x8d
# The variance after the first convolution, as a multiple of its squared weights: some 0.1 where the input has the
# deviation 1, and the square of 57 times as much where it is left as it is.
LOUD = 20.0
SIZES = ("output_size", "out_size")  # of RoIs, the second in MMDetection 2.0


def check_supported(said: Mapping[str, Any]) -> None:
    """Refuses what would change the results and has no counterpart here.

    Raises:
        ConfigError: names the setting.
    """
    for name, found, allowed in _others(said, SUPPORTED):
        expected = " or ".join(map(repr, allowed)) or "none"
        raise ConfigError(f"{name} {found!r} has no counterpart here: expected {expected}")
    layers = [
        {name: value for name, value in setting(extractor, "roi_layer", {}).items() if name not in SIZES}
        for part in ("bbox", "mask")
        for extractor in stages(said, f"model.roi_head.{part}_roi_extractor")
    ]
    if any(layer != layers[0] for layer in layers):
        raise ConfigError(f"roi_layer is the same for boxes and masks here but for output_size, found {layers}")


def training_differs(said: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences on what training would do otherwise: nothing of it changes what is found."""
    return tuple(
        f"training goes on with another {name} than {found!r}: {' or '.join(map(repr, allowed))}"
        for name, found, allowed in _others(said, LEARNED)
    )


def _others(
    said: Mapping[str, Any], table: Mapping[str, Mapping[str, tuple[Any, ...]]]
) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """Name, value and allowed values of each setting that is not among them."""
    result = []
    for part, names in table.items():
        for stage in stages(said, part):
            for name, allowed in names.items():
                found = setting(stage, name)
                if found is not None and found not in allowed:
                    result.append((f"{part.removeprefix('model.')}.{name}", found, allowed))
    return result


def reads_bgr(model: ModelConfig, *, plain: bool) -> bool:
    """Whether MMDetection's own configs read BGR for such a model; `plain`: the deviation is 1."""
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    return plain or backbone.stride_in_1x1 or _is_caffe2(backbone)


def _is_caffe2(backbone: ResNetConfig) -> bool:
    return (backbone.groups, backbone.bottleneck_width) == (32, 256)


def usual(model: ModelConfig, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings that MMDetection's own configs give a model of this shape, and the sentences that say so.

    Args:
        tensors: by our names.
    """
    backbone, pyramid = model.backbone, model.neck == "fpn"
    assert isinstance(backbone, ResNetConfig)
    cascade = bool(model.box_head.cascade_ious)
    caffe, why = _is_caffe(model, tensors)
    pixels = CAFFE if caffe or backbone.norm == "group_norm" else CAFFE2 if _is_caffe2(backbone) else RGB
    before, after = ((2000, 1000), (1000, 1000)) if pyramid else ((12000, 6000), (2000, 1000))
    kind = "GN" if backbone.norm == "group_norm" else "BN"
    loss: dict[str, Any] = {"type": "SmoothL1Loss", "beta": 1.0} if cascade else {"type": "L1Loss"}
    factors = (1, 2, 3) if cascade else (1,)
    stds = [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    in_rpn = {"pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "min_pos_iou": 0.3, "match_low_quality": True}
    side = model.box_head.resolution
    said: dict[str, Any] = {
        "data_preprocessor": {**pixels, "pad_size_divisor": 32},
        "backbone": {
            "style": "caffe" if caffe else "pytorch",
            "frozen_stages": 1,
            "norm_cfg": {"type": kind, "requires_grad": not caffe},
            "dilations": (1, 1, 1, 2 if model.neck == "dc5" else 1),
        },
        "rpn_head": {
            "anchor_generator": {
                "scales": [8] if pyramid else [2, 4, 8, 16, 32],
                "ratios": [0.5, 1.0, 2.0],
                "strides": [4, 8, 16, 32, 64] if pyramid else [16],
            },
            "loss_bbox": {**loss, "beta": 1 / 9} if cascade else loss,
        },
        "roi_head": {
            "bbox_roi_extractor": {"roi_layer": {"output_size": side}},
            "mask_roi_extractor": {"roi_layer": {"output_size": 14}},
            "bbox_head": [{"loss_bbox": loss, "bbox_coder": {"target_stds": stds[i - 1]}} for i in factors],
            "mask_head": {},
            **({"stage_loss_weights": [1, 0.5, 0.25]} if cascade else {}),
        },
        "train_cfg": {
            "rpn": {"assigner": in_rpn, "allowed_border": -1 if pyramid and not cascade else 0},
            "rpn_proposal": {"nms_pre": before[0], "max_per_img": 2000 if cascade else after[0]},
            "rcnn": [
                {
                    "assigner": {
                        "pos_iou_thr": (4 + i) / 10,
                        "min_pos_iou": 0.5,
                        "match_low_quality": pyramid and not cascade and model.mask_head is not None,
                    }
                }
                for i in factors
            ],
        },
        "test_cfg": {"rpn": {"nms_pre": before[1], "max_per_img": after[1]}},
    }
    order = "RGB" if pixels["bgr_to_rgb"] else "BGR"
    assumed = (
        f"the style of the backbone is {said['backbone']['style']}, {why}",
        f"the input is {order} with mean {pixels['mean']} and standard deviation {pixels['std']} (data_preprocessor)",
        f"anchors of {'8' if pyramid else '2, 4, 8, 16 and 32'} strides and ratios 0.5, 1 and 2 (anchor_generator)",
        "RoIs are read by RoIAlign, aligned, with as many samples as a bin has cells (roi_layer)",
        "scores above 0.05, suppression at 0.5 and 100 detections an image (test_cfg.rcnn)",
        f"{before[1]} proposals before and {after[1]} after suppression at 0.7 (test_cfg.rpn)",
        "losses, overlaps and samples of training are those of MMDetection's own configs",
    )
    return {"model": said}, assumed


def _is_caffe(model: ModelConfig, tensors: Mapping[str, Tensor]) -> tuple[bool, str]:
    """Whether the backbone is of the style caffe: the stride in the first 1x1 and pixels that are not divided by their
    deviation. The strides have left no trace, but the pixels have, in the variance behind the first convolution."""
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    variance = tensors.get("backbone.stem.norm.running_var")
    if backbone.depth < 50 or backbone.groups > 1 or variance is None:
        return False, "as of all such models there"
    weights = tensors["backbone.stem.conv.weight"].double().square().sum((1, 2, 3))
    loud = float((variance.double() / weights).median())
    plain = "the input is not divided by its deviation" if loud > LOUD else "the input is divided by its deviation"
    return loud > LOUD, f"because the variance behind the first convolution says that {plain}"

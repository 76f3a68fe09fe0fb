"""Checks that the settings of an MMDetection config are supported, and that the config belongs to a file.

The source is MMDetection 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskrcnn.config import ModelConfig
from maskrcnn.errors import ConfigError
from maskrcnn.weights.frameworks.mmdetection.config_file import stages
from maskrcnn.weights.frameworks.settings import Assumed, check_fits, setting, unsupported

CODER = "DeltaXYWHBBoxCoder"
# Settings that change the results, by their part of the config, with their supported values. A missing setting has
# MMDetection's default, which is always supported.
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
# The same for settings that change training only.
TRAINING: dict[str, dict[str, tuple[Any, ...]]] = {
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
SIZES = ("output_size", "out_size")  # the side of a RoI feature; the second name is that of MMDetection 2.0


def check_supported(settings: Mapping[str, Any]) -> None:
    """Refuses settings that change the results and are not supported.

    Raises:
        ConfigError: names the setting.
    """
    for name, found, allowed in _unsupported(settings, SUPPORTED):
        raise unsupported(name, found, allowed)
    layers = [
        {name: value for name, value in setting(extractor, "roi_layer", {}).items() if name not in SIZES}
        for part in ("bbox", "mask")
        for extractor in stages(settings, f"model.roi_head.{part}_roi_extractor")
    ]
    if any(layer != layers[0] for layer in layers):
        raise ConfigError(f"roi_layer must be the same for boxes and masks, except for output_size, found {layers}")


def training_differs(settings: Mapping[str, Any]) -> Assumed:
    """A sentence for each training setting that is not supported. They do not change detections."""
    return tuple(
        f"{name} {found!r} is not supported: training continues with {' or '.join(map(repr, allowed))}"
        for name, found, allowed in _unsupported(settings, TRAINING)
    )


def _unsupported(
    settings: Mapping[str, Any], table: Mapping[str, Mapping[str, tuple[Any, ...]]]
) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """The name, the value and the supported values of each setting with an unsupported value."""
    result = []
    for part, names in table.items():
        for stage in stages(settings, part):
            for name, allowed in names.items():
                found = setting(stage, name)
                if found is not None and found not in allowed:
                    result.append((f"{part.removeprefix('model.')}.{name}", found, allowed))
    return result


def check_fit(model: ModelConfig, settings: Mapping[str, Any]) -> None:
    """Refuses a config that contradicts the shapes in the file.

    Raises:
        WeightsError: names the setting.
    """
    parts = {True: "a part of the model", False: "none"}
    norm = setting(settings, "model.backbone.norm_cfg.type", "BN")
    given = {
        "backbone.depth": setting(settings, "model.backbone.depth"),
        "backbone.norm_cfg.type": "GN" if norm == "GN" else "BN",
        "neck": parts[setting(settings, "model.neck") is not None],
        "roi_head.mask_head": parts[setting(settings, "model.roi_head.mask_head") is not None],
    }
    known = {
        "backbone.depth": model.resnet.depth,
        "backbone.norm_cfg.type": "GN" if model.resnet.norm == "group_norm" else "BN",
        "neck": parts[model.neck == "fpn"],
        "roi_head.mask_head": parts[model.mask_head is not None],
    }
    check_fits(given, known)
    name = "roi_head.bbox_head.num_classes"
    for head in stages(settings, "model.roi_head.bbox_head"):
        check_fits({name: head.get("num_classes")}, {name: model.num_classes})

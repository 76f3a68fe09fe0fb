"""Converts MMDetection's settings and the shapes of the tensors to our config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from maskrcnn.config import (
    AnchorConfig,
    BoxHeadConfig,
    Category,
    Config,
    DetectConfig,
    HeadNorm,
    MaskHeadConfig,
    ModelConfig,
    Norm,
    ResNetConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn.config.conventions import MMDETECTION, CascadeRules, Conventions, MatchingRules
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.weights.frameworks.coco_categories import COCO
from maskrcnn.weights.frameworks.mmdetection.config_file import parse_config, stages
from maskrcnn.weights.frameworks.mmdetection.defaults import assumed_settings
from maskrcnn.weights.frameworks.mmdetection.image import augment_of, image_of, pixels_of
from maskrcnn.weights.frameworks.mmdetection.supported import check_fit, check_supported, training_differs
from maskrcnn.weights.frameworks.settings import Assumed, Settings, four, kinds_checked, setting


@kinds_checked("MMDetection")
def our_config(
    model: ModelConfig, tensors: Mapping[str, Tensor], extra: Mapping[str, Any], given: Mapping[str, Any] | None
) -> tuple[Config, bool, Assumed]:
    """The config of a model with this architecture.

    Args:
        tensors: by our names, in MMDetection's layout.
        extra: the plain data of the file. Its `meta` holds the class names, and in most files the config.
        given: the result of `read_settings`, or None.

    Returns:
        The config, whether the network of the file reads BGR, and the assumptions.

    Raises:
        ConfigError, WeightsError: as in `Importer.import_checkpoint`.
    """
    meta = extra.get("meta")
    assumed: Assumed = ()
    if given is None:
        given, assumed = _stored_settings(meta, model)
    if given is None:
        settings, sentences = assumed_settings(model, tensors)
    else:
        settings = _whole_model(given)
        check_supported(settings)
        check_fit(model, settings)
        sentences = training_differs(settings)
    image, bgr, image_assumed = image_of(settings)
    config = Config(
        model=_model(model, settings),
        image=image,
        augment=augment_of(settings, image),
        conventions=_conventions(model, settings),
        categories=_categories(meta, model),
    )
    return config, bgr, assumed + sentences + image_assumed


def _whole_model(settings: Mapping[str, Any]) -> Settings:
    """The settings with `train_cfg` and `test_cfg` inside the model.

    MMDetection 2 has them beside the model, where version 3 has other settings under these names.
    """
    beside = {
        name: settings[name]
        for name in ("train_cfg", "test_cfg")
        if setting(settings, f"{name}.rpn") is not None and setting(settings, f"model.{name}") is None
    }
    return {**settings, "model": {**settings["model"], **beside}}


def _stored_settings(meta: Any, model: ModelConfig) -> tuple[Settings | None, Assumed]:
    """The config in the text of a checkpoint (`cfg` in MMDetection 3, `config` in 2). If it cannot be used, None and a
    sentence with the reason."""
    text = setting(meta, "cfg") or setting(meta, "config")
    if not isinstance(text, str):
        return None, ()
    try:
        stored = parse_config(text, "the config in the file")
        if not isinstance(stored.get("model"), Mapping):
            return None, ()
        # A file that was upgraded from version 1 to 2 holds a config that contradicts its weights.
        check_fit(model, stored)
    except (ConfigError, WeightsError) as error:
        return None, (f"the config in the file is ignored: {error}",)
    return stored, ()


def _categories(meta: Any, model: ModelConfig) -> tuple[Category, ...]:
    """The categories of the class names in the file. Those of COCO get COCO's ids. Empty if there are no names."""
    data = setting(meta, "dataset_meta", {})
    names = setting(meta, "CLASSES") or setting(data, "classes") or setting(data, "CLASSES") or ()
    if isinstance(names, str):
        names = (names,)
    if len(names) != model.num_classes or not all(isinstance(name, str) for name in names):
        return ()
    if tuple(names) == tuple(category.name for category in COCO):
        return COCO
    return tuple(Category(number, name) for number, name in enumerate(names, start=1))


def _model(model: ModelConfig, settings: Mapping[str, Any]) -> ModelConfig:
    test = setting(settings, "model.test_cfg.rcnn", {})
    dilations = setting(settings, "model.backbone.dilations", (1,))
    return replace(
        model,
        neck="c5" if model.neck == "dc5" and dilations[-1] == 1 else model.neck,
        backbone=_backbone(model, settings),
        fpn_norm=_head_norm(model.fpn_norm, setting(settings, "model.neck", {})),
        anchors=_anchors(settings),
        rpn=_rpn(model.rpn, settings),
        rois=_rois(settings),
        box_head=_box_head(model, settings),
        mask_head=None if model.mask_head is None else _mask_head(model.mask_head, settings),
        detect=DetectConfig(
            score_threshold=test.get("score_thr", 0.05),
            nms_iou=_nms_iou(test, 0.5),
            max_detections=test.get("max_per_img", 100),
            mask_threshold=test.get("mask_thr_binary", 0.5),
        ),
    )


def _backbone(model: ModelConfig, settings: Mapping[str, Any]) -> ResNetConfig:
    backbone, given = model.resnet, setting(settings, "model.backbone", {})
    norms: dict[str, Any] = {"type": "BN", "requires_grad": True} | (given.get("norm_cfg") or {})
    norm: Norm = "sync_batch_norm" if norms["type"] == "SyncBN" else "batch_norm"
    if norms["type"] == "GN":
        norm = "group_norm"
    elif given.get("norm_eval", True):  # statistics are fixed, and scale and shift may be trained
        norm = "fixed_batch_norm" if norms["requires_grad"] else "frozen_batch_norm"
    return replace(
        backbone,
        stride_in_1x1=backbone.depth >= 50 and given.get("style", "pytorch") == "caffe",
        norm=norm,
        norm_eps=norms.get("eps", backbone.norm_eps),
        frozen_stages=max(0, given.get("frozen_stages", -1) + 1),
    )


def _head_norm(norm: HeadNorm, head: Mapping[str, Any]) -> HeadNorm:
    """The norm of a head. The config tells whether its batch norm is synchronised."""
    synchronised = setting(head, "norm_cfg.type") == "SyncBN"
    return "sync_batch_norm" if norm == "batch_norm" and synchronised else norm


def _anchor_generator(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    head: Mapping[str, Any] = setting(settings, "model.rpn_head", {})
    # Early versions of MMDetection 2 have these settings in the head.
    early = {name: head.get(f"anchor_{name}") for name in ("scales", "ratios", "strides", "base_sizes")}
    result: Mapping[str, Any] = setting(head, "anchor_generator", early)
    return result


def _anchors(settings: Mapping[str, Any]) -> AnchorConfig:
    given = _anchor_generator(settings)
    scales = given.get("scales")
    if scales is None:
        octaves = given["scales_per_octave"]
        scales = [given["octave_base_scale"] * 2 ** (i / octaves) for i in range(octaves)]
    return AnchorConfig(
        sizes=tuple(
            tuple(float(scale * base) for scale in scales) for base in given.get("base_sizes") or given["strides"]
        ),
        ratios=tuple(float(ratio) for ratio in given["ratios"]),
    )


def _weights(coder: Mapping[str, Any], default_stds: tuple[float, ...]) -> tuple[float, float, float, float]:
    """The weights of box offsets. A DeltaXYWHBBoxCoder has standard deviations, which are their reciprocals."""
    return four(1 / std for std in coder.get("target_stds", default_stds))


def _box_loss(head: Mapping[str, Any]) -> dict[str, Any]:
    """`box_loss` and `smooth_l1_beta`. L1 replaces losses that are not supported; `training_differs` reports them."""
    loss = head.get("loss_bbox", {})
    if loss.get("type") == "GIoULoss" and head.get("reg_decoded_bbox"):
        return {"box_loss": "giou"}
    beta = loss.get("beta", 1.0) if loss.get("type") == "SmoothL1Loss" else 0.0
    return {"box_loss": "smooth_l1", "smooth_l1_beta": beta}


def _conventions(model: ModelConfig, settings: Mapping[str, Any]) -> Conventions:
    """MMDetection's conventions, with the rules that its settings change."""
    testing, offset = setting(settings, "model.test_cfg.rpn", {}), _anchor_generator(settings).get("center_offset", 0.0)
    layer = stages(settings, "model.roi_head.bbox_roi_extractor")[0].get("roi_layer", {})
    return replace(
        MMDETECTION,
        pixels=pixels_of(settings),
        anchors=replace(MMDETECTION.anchors, offset=float(offset)),
        features=replace(MMDETECTION.features, aligned=layer.get("aligned", True)),
        matching=_matching(settings),
        proposals=replace(MMDETECTION.proposals, min_size=float(max(0, testing.get("min_bbox_size", 0)))),
        cascade=_cascade(model, settings),
    )


def _matching(settings: Mapping[str, Any]) -> MatchingRules:
    in_rpn = setting(settings, "model.train_cfg.rpn", {})
    in_roi_head = (stages(settings, "model.train_cfg.rcnn") or [{}])[0]
    rpn, box = (setting(training, "assigner", {}) for training in (in_rpn, in_roi_head))
    border = in_rpn.get("allowed_border", -1)
    return replace(
        MMDETECTION.matching,
        rpn_low_quality_iou=rpn.get("min_pos_iou", 0.0) if rpn.get("match_low_quality", True) else None,
        box_low_quality_iou=box.get("min_pos_iou", 0.0) if box.get("match_low_quality", False) else None,
        allowed_border=None if border < 0 else (float(border), float(border)),
        ground_truth_rois=setting(in_roi_head, "sampler", {}).get("add_gt_as_proposals", True),
    )


def _cascade(model: ModelConfig, settings: Mapping[str, Any]) -> CascadeRules:
    if not model.box_head.cascade_ious:
        return MMDETECTION.cascade
    weights = setting(settings, "model.roi_head.stage_loss_weights", (1.0,) * (len(model.box_head.cascade_ious) + 1))
    return replace(MMDETECTION.cascade, loss_weights=tuple(map(float, weights)))


def _rpn(rpn: RPNConfig, settings: Mapping[str, Any]) -> RPNConfig:
    head = setting(settings, "model.rpn_head", {})
    training, testing = setting(settings, "model.train_cfg.rpn", {}), setting(settings, "model.test_cfg.rpn", {})
    proposing = setting(settings, "model.train_cfg.rpn_proposal", testing)
    assigner, sampler = setting(training, "assigner", {}), setting(training, "sampler", {})
    return replace(
        rpn,
        positive_iou=assigner.get("pos_iou_thr", 0.7),
        negative_iou=assigner.get("neg_iou_thr", 0.3),
        samples=sampler.get("num", 256),
        positive_fraction=sampler.get("pos_fraction", 0.5),
        pre_nms_train=proposing.get("nms_pre", 2000),
        pre_nms_test=testing.get("nms_pre", 1000),
        post_nms_train=_kept(proposing),
        post_nms_test=_kept(testing),
        nms_iou=_nms_iou(testing, 0.7),
        box_weights=_weights(setting(head, "bbox_coder", head), (1.0, 1.0, 1.0, 1.0)),
        **_box_loss(head),
    )


def _kept(given: Mapping[str, Any]) -> int:
    """The number of proposals after non-maximum suppression. MMDetection 2 has older names for it."""
    return next((given[name] for name in ("max_per_img", "max_num", "nms_post") if name in given), 1000)


def _nms_iou(given: Mapping[str, Any], default: float) -> float:
    """The threshold of `nms=dict(iou_threshold=0.7)`, or of the older `iou_thr` and `nms_thr`."""
    nms = given.get("nms", {})
    return float(nms.get("iou_threshold", nms.get("iou_thr", given.get("nms_thr", default))))


def _rois(settings: Mapping[str, Any]) -> RoIConfig:
    extractor = stages(settings, "model.roi_head.bbox_roi_extractor")[0]
    layer = extractor.get("roi_layer", {})
    # The level of a box is floor(log2(side / finest_scale + 1e-6)), counted from P2.
    level: dict[str, Any] = {
        "canonical_level": 2,
        "canonical_size": float(extractor.get("finest_scale", 56)),
    }
    if layer.get("type") == "RoIPool":
        return RoIConfig(op="pool", reduce="max", **level)
    return RoIConfig(
        reduce="max" if layer.get("pool_mode") == "max" else "average",
        sampling_ratio=layer.get("sampling_ratio", layer.get("sample_num", 0)),
        **level,
    )


def _roi_side(extractors: Sequence[Mapping[str, Any]], default_side: int) -> int:
    """Cells along a side of a RoI feature; `out_size` is the older name."""
    layer = setting(extractors[0], "roi_layer", {})
    return int(layer.get("output_size", layer.get("out_size", default_side)))


def _box_head(model: ModelConfig, settings: Mapping[str, Any]) -> BoxHeadConfig:
    box = model.box_head
    count = len(box.cascade_ious) + 1
    heads = stages(settings, "model.roi_head.bbox_head")
    training = stages(settings, "model.train_cfg.rcnn") or [{}]
    training = training * count if len(training) == 1 else training
    if len(heads) != count or len(training) != count:
        raise WeightsError(
            f"the file has {count} box stages, and the config has {len(heads)} (roi_head.bbox_head) and "
            f"{len(training)} (train_cfg.rcnn): do the settings belong to this file?"
        )
    assigners = [setting(stage, "assigner", {}) for stage in training]
    sampler = setting(training[0], "sampler", {})
    ious = [assigner.get("pos_iou_thr", 0.5 + 0.1 * i) for i, assigner in enumerate(assigners)]
    weights = [_weights(setting(head, "bbox_coder", head), (0.1, 0.1, 0.2, 0.2)) for head in heads]
    side = _roi_side(stages(settings, "model.roi_head.bbox_roi_extractor"), box.resolution)
    return replace(
        box,
        positive_iou=ious[0],
        samples=sampler.get("num", 512),
        positive_fraction=sampler.get("pos_fraction", 0.25),
        resolution=box.resolution if box.layers else side,
        norm=_head_norm(box.norm, heads[0]),
        box_weights=weights[0],
        cascade_ious=tuple(ious[1:]),
        cascade_weights=tuple(weights[1:]),
        **_box_loss(heads[0]),
    )


def _mask_head(mask: MaskHeadConfig, settings: Mapping[str, Any]) -> MaskHeadConfig:
    extractors = stages(settings, "model.roi_head.mask_roi_extractor") or stages(
        settings, "model.roi_head.bbox_roi_extractor"
    )
    training = (stages(settings, "model.train_cfg.rcnn") or [{}])[0]
    sampler = setting(training, "sampler", {})
    return replace(
        mask,
        resolution=_roi_side(extractors, mask.resolution),
        norm=_head_norm(mask.norm, stages(settings, "model.roi_head.mask_head")[0]),
        samples=max(1, int(sampler.get("num", 512) * sampler.get("pos_fraction", 0.25))),
    )

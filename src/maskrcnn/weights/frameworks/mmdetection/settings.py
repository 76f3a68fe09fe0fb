"""A config of ours from MMDetection's settings and the shapes of the tensors."""

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
from maskrcnn.weights.frameworks.mmdetection.config_file import parse_config, setting, stages
from maskrcnn.weights.frameworks.mmdetection.defaults import check_supported, training_differs, usual
from maskrcnn.weights.frameworks.mmdetection.image import augment_of, image_of, pixels_of

BOX_LOSSES = {"L1Loss": 0.0, "SmoothL1Loss": 1.0}  # and where the parabola ends, if `beta` is silent


def our_config(
    model: ModelConfig, tensors: Mapping[str, Tensor], extra: Mapping[str, Any], settings: Mapping[str, Any] | None
) -> tuple[Config, bool, tuple[str, ...]]:
    """The config of a model of which the shapes are known.

    Args:
        model: what the shapes tell.
        tensors: by our names, in MMDetection's layout.
        extra: the plain data of the file: `meta` holds the names of the classes, and mostly the config.
        settings: what `read_settings` gives, or None.

    Returns:
        The config, whether the network of the file reads BGR, and what was assumed.

    Raises:
        ConfigError: a setting asks for what this package has not, or cannot be read.
        WeightsError: a setting does not fit the shapes.
    """
    meta = extra.get("meta")
    assumed: tuple[str, ...] = ()
    if settings is None:
        settings, assumed = _held(meta, model)
    said: Mapping[str, Any]
    if settings is None:
        said, guessed = usual(model, tensors)
        assumed += guessed
    else:
        said = _whole_model(settings)
        check_supported(said)
        _check_fit(model, said)
        assumed += training_differs(said)
    try:
        image, bgr, sentence = image_of(said)
        config = Config(
            model=_model(model, said),
            image=image,
            augment=augment_of(said, image),
            conventions=_conventions(model, said),
            categories=_categories(meta, model),
        )
    except (ConfigError, WeightsError):
        raise
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise ConfigError(f"a setting of the config has a value of another kind than MMDetection's: {error}") from None
    return config, bgr, assumed + sentence


def _whole_model(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """MMDetection 2 had `train_cfg` and `test_cfg` beside the model, where 3 has settings of its loops."""
    beside = {
        name: settings[name]
        for name in ("train_cfg", "test_cfg")
        if setting(settings, f"{name}.rpn") is not None and setting(settings, f"model.{name}") is None
    }
    return {**settings, "model": {**settings["model"], **beside}} if beside else settings


def _held(meta: Any, model: ModelConfig) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The config that a file of training holds as text, MMDetection 3 as `cfg` and 2 as `config`, or None and why it is
    not followed."""
    text = setting(meta, "cfg") or setting(meta, "config")
    if not isinstance(text, str):
        return None, ()
    try:
        held = parse_config(text, "the config in the file")
        if not isinstance(held.get("model"), Mapping):
            return None, ()
        _check_fit(model, held)  # that of a file of version 1 which was brought up to 2 is not of its weights
    except (ConfigError, WeightsError) as error:
        return None, (f"the config that the file holds is not followed: {error}",)
    return held, ()


def _categories(meta: Any, model: ModelConfig) -> tuple[Category, ...]:
    """Of the names that the file holds; those of COCO get its ids."""
    data = setting(meta, "dataset_meta", {})
    names = setting(meta, "CLASSES") or setting(data, "classes") or setting(data, "CLASSES") or ()
    if isinstance(names, str):
        names = (names,)
    if len(names) != model.num_classes or not all(isinstance(name, str) for name in names):
        return ()
    if tuple(names) == tuple(category.name for category in COCO):
        return COCO
    return tuple(Category(number, name) for number, name in enumerate(names, start=1))


def _check_fit(model: ModelConfig, said: Mapping[str, Any]) -> None:
    """Whether a config is of this file: what it says and the shapes know as well must be the same."""
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    known: list[tuple[str, Any, Any]] = [("backbone.depth", setting(said, "model.backbone.depth"), backbone.depth)]
    kind = setting(said, "model.backbone.norm_cfg.type", "BN")
    known.append(("backbone.norm_cfg.type", "GN" if kind == "GN" else "BN", _kind(backbone.norm)))
    for part, there in (("neck", model.neck == "fpn"), ("roi_head.mask_head", model.mask_head is not None)):
        words = {True: "a part of the model", False: "none"}
        known.append((part, words[setting(said, f"model.{part}") is not None], words[there]))
    for head in stages(said, "model.roi_head.bbox_head"):
        known.append(("roi_head.bbox_head.num_classes", head.get("num_classes"), model.num_classes))
    for name, given, found in known:
        if given is not None and given != found:
            raise WeightsError(
                f"{name} is {given!r} in the config, and {found!r} in the file: is it the config of this file?"
            )


def _kind(norm: Norm) -> str:
    return "GN" if norm == "group_norm" else "BN"


def _model(model: ModelConfig, said: Mapping[str, Any]) -> ModelConfig:
    test = setting(said, "model.test_cfg.rcnn", {})
    dilations = setting(said, "model.backbone.dilations", (1,))
    return replace(
        model,
        neck="c5" if model.neck == "dc5" and dilations[-1] == 1 else model.neck,
        backbone=_backbone(model, said),
        fpn_norm=_head_norm(model.fpn_norm, setting(said, "model.neck", {})),
        anchors=_anchors(said),
        rpn=_rpn(model.rpn, said),
        rois=_rois(said),
        box_head=_box_head(model, said),
        mask_head=None if model.mask_head is None else _mask_head(model.mask_head, said),
        detect=DetectConfig(
            score_threshold=test.get("score_thr", 0.05),
            nms_iou=_nms_iou(test, 0.5),
            max_detections=test.get("max_per_img", 100),
            mask_threshold=test.get("mask_thr_binary", 0.5),
        ),
    )


def _backbone(model: ModelConfig, said: Mapping[str, Any]) -> ResNetConfig:
    backbone, given = model.backbone, setting(said, "model.backbone", {})
    assert isinstance(backbone, ResNetConfig)
    norms: dict[str, Any] = {"type": "BN", "requires_grad": True} | (given.get("norm_cfg") or {})
    norm: Norm = "sync_batch_norm" if norms["type"] == "SyncBN" else "batch_norm"
    if norms["type"] == "GN":
        norm = "group_norm"
    elif given.get("norm_eval", True):  # statistics stay; what is beside them may be trained
        norm = "fixed_batch_norm" if norms["requires_grad"] else "frozen_batch_norm"
    return replace(
        backbone,
        stride_in_1x1=backbone.depth >= 50 and given.get("style", "pytorch") == "caffe",
        norm=norm,
        norm_eps=norms.get("eps", backbone.norm_eps),
        frozen_stages=max(0, given.get("frozen_stages", -1) + 1),
    )


def _head_norm(norm: HeadNorm, head: Mapping[str, Any]) -> HeadNorm:
    """Batch norm of a head may be synchronised; no shape tells."""
    synchronised = setting(head, "norm_cfg.type") == "SyncBN"
    return "sync_batch_norm" if norm == "batch_norm" and synchronised else norm


def _anchor_generator(said: Mapping[str, Any]) -> Mapping[str, Any]:
    head: Mapping[str, Any] = setting(said, "model.rpn_head", {})
    # Before there was a generator the head had its settings.
    before = {name: head.get(f"anchor_{name}") for name in ("scales", "ratios", "strides", "base_sizes")}
    result: Mapping[str, Any] = setting(head, "anchor_generator", before)
    return result


def _anchors(said: Mapping[str, Any]) -> AnchorConfig:
    given = _anchor_generator(said)
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


def _weights(coder: Mapping[str, Any], usual_stds: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Of a DeltaXYWHBBoxCoder, which multiplies by deviations where we divide by weights."""
    x, y, width, height = (1 / deviation for deviation in coder.get("target_stds", usual_stds))
    return x, y, width, height


def _box_loss(head: Mapping[str, Any]) -> dict[str, Any]:
    """`box_loss` and `smooth_l1_beta`; L1 for one that has no counterpart here, which `training_differs` says."""
    loss = head.get("loss_bbox", {})
    if loss.get("type") == "GIoULoss" and head.get("reg_decoded_bbox"):
        return {"box_loss": "giou"}
    beta = loss.get("beta", BOX_LOSSES["SmoothL1Loss"]) if loss.get("type") == "SmoothL1Loss" else 0.0
    return {"box_loss": "smooth_l1", "smooth_l1_beta": beta}


def _conventions(model: ModelConfig, said: Mapping[str, Any]) -> Conventions:
    """MMDetection's rules, with those that its settings change."""
    testing, offset = setting(said, "model.test_cfg.rpn", {}), _anchor_generator(said).get("center_offset", 0.0)
    layer = stages(said, "model.roi_head.bbox_roi_extractor")[0].get("roi_layer", {})
    return replace(
        MMDETECTION,
        pixels=pixels_of(said),
        anchors=replace(MMDETECTION.anchors, offset=float(offset)),
        features=replace(MMDETECTION.features, aligned=layer.get("aligned", True)),
        matching=_matching(said),
        proposals=replace(MMDETECTION.proposals, min_size=float(max(0, testing.get("min_bbox_size", 0)))),
        cascade=_cascade(model, said),
    )


def _matching(said: Mapping[str, Any]) -> MatchingRules:
    in_rpn = setting(said, "model.train_cfg.rpn", {})
    in_roi_head = (stages(said, "model.train_cfg.rcnn") or [{}])[0]
    rpn, box = (setting(training, "assigner", {}) for training in (in_rpn, in_roi_head))
    border = in_rpn.get("allowed_border", -1)
    return replace(
        MMDETECTION.matching,
        rpn_low_quality_iou=rpn.get("min_pos_iou", 0.0) if rpn.get("match_low_quality", True) else None,
        box_low_quality_iou=box.get("min_pos_iou", 0.0) if box.get("match_low_quality", False) else None,
        allowed_border=None if border < 0 else (float(border), float(border)),
        ground_truth_rois=setting(in_roi_head, "sampler", {}).get("add_gt_as_proposals", True),
    )


def _cascade(model: ModelConfig, said: Mapping[str, Any]) -> CascadeRules:
    if not model.box_head.cascade_ious:
        return MMDETECTION.cascade
    weights = setting(said, "model.roi_head.stage_loss_weights", (1.0,) * (len(model.box_head.cascade_ious) + 1))
    return replace(MMDETECTION.cascade, loss_weights=tuple(map(float, weights)))


def _rpn(rpn: RPNConfig, said: Mapping[str, Any]) -> RPNConfig:
    head = setting(said, "model.rpn_head", {})
    training, testing = setting(said, "model.train_cfg.rpn", {}), setting(said, "model.test_cfg.rpn", {})
    proposing = setting(said, "model.train_cfg.rpn_proposal", testing)
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
    """Proposals after suppression; the older names are those of MMDetection 2."""
    return next((given[name] for name in ("max_per_img", "max_num", "nms_post") if name in given), 1000)


def _nms_iou(given: Mapping[str, Any], default: float) -> float:
    """`nms=dict(iou_threshold=0.7)`, and the older `iou_thr` and `nms_thr`."""
    nms = given.get("nms", {})
    return float(nms.get("iou_threshold", nms.get("iou_thr", given.get("nms_thr", default))))


def _rois(said: Mapping[str, Any]) -> RoIConfig:
    extractor = stages(said, "model.roi_head.bbox_roi_extractor")[0]
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


def _roi_side(extractors: Sequence[Mapping[str, Any]], usual_side: int) -> int:
    """Cells along a side of a RoI feature; `out_size` is the older name."""
    layer = setting(extractors[0], "roi_layer", {})
    return int(layer.get("output_size", layer.get("out_size", usual_side)))


def _box_head(model: ModelConfig, said: Mapping[str, Any]) -> BoxHeadConfig:
    box = model.box_head
    count = len(box.cascade_ious) + 1
    heads = stages(said, "model.roi_head.bbox_head")
    training = stages(said, "model.train_cfg.rcnn") or [{}]
    training = training * count if len(training) == 1 else training
    if len(heads) != count or len(training) != count:
        raise WeightsError(
            f"the file has {count} stages of boxes, and the config {len(heads)} (roi_head.bbox_head) and "
            f"{len(training)} (train_cfg.rcnn): is it the config of this file?"
        )
    assigners = [setting(stage, "assigner", {}) for stage in training]
    sampler = setting(training[0], "sampler", {})
    ious = [assigner.get("pos_iou_thr", 0.5 + 0.1 * i) for i, assigner in enumerate(assigners)]
    weights = [_weights(setting(head, "bbox_coder", head), (0.1, 0.1, 0.2, 0.2)) for head in heads]
    side = _roi_side(stages(said, "model.roi_head.bbox_roi_extractor"), box.resolution)
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


def _mask_head(mask: MaskHeadConfig, said: Mapping[str, Any]) -> MaskHeadConfig:
    extractors = stages(said, "model.roi_head.mask_roi_extractor") or stages(said, "model.roi_head.bbox_roi_extractor")
    training = (stages(said, "model.train_cfg.rcnn") or [{}])[0]
    drawn = setting(training, "sampler", {})
    return replace(
        mask,
        resolution=_roi_side(extractors, mask.resolution),
        norm=_head_norm(mask.norm, stages(said, "model.roi_head.mask_head")[0]),
        samples=max(1, int(drawn.get("num", 512) * drawn.get("pos_fraction", 0.25))),
    )

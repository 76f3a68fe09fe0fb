"""Matterport's Mask R-CNN (Keras HDF5): its names, layouts and rules in ours, and back.

The source of every rule is `mrcnn/model.py`, `mrcnn/utils.py` and `mrcnn/config.py` of matterport/Mask_RCNN. A layer
lies in the file as group/layer/parameter; its name alone says what it is, as in `load_weights(by_name=True)`.

Batch norms of the backbone stay, with the bias of the convolution before them moved into their mean. Those of the
heads, whose statistics rest there by default, are folded into the layers before them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn.config import (
    AnchorConfig,
    BoxHeadConfig,
    Config,
    DetectConfig,
    ImageConfig,
    MaskHeadConfig,
    ModelConfig,
    ResNetConfig,
    RoIConfig,
    RPNConfig,
    TrainConfig,
)
from maskrcnn.errors import WeightsError
from maskrcnn.models.build import build_model
from maskrcnn.models.resnet import BLOCKS
from maskrcnn.weights.imported import Imported, background_first, background_last, fold_norm, require_names
from maskrcnn.weights.model_file import check_fit
from maskrcnn.weights.read import Checkpoint

EPS = 1e-3  # of Keras' batch norm
XYWH = [1, 0, 3, 2]  # (y, x, h, w) to (x, y, w, h) and back

# What `mrcnn/config.py` has where a model's own configuration is not at hand.
DEFAULTS: dict[str, Any] = {
    "BACKBONE_STRIDES": [4, 8, 16, 32, 64],
    "IMAGE_RESIZE_MODE": "square",
    "IMAGE_MIN_DIM": 800,
    "IMAGE_MAX_DIM": 1024,
    "IMAGE_MIN_SCALE": 0,
    "MEAN_PIXEL": [123.7, 116.8, 103.9],
    "RPN_ANCHOR_SCALES": [32, 64, 128, 256, 512],
    "RPN_ANCHOR_RATIOS": [0.5, 1, 2],
    "RPN_ANCHOR_STRIDE": 1,
    "RPN_NMS_THRESHOLD": 0.7,
    "RPN_TRAIN_ANCHORS_PER_IMAGE": 256,
    "RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "PRE_NMS_LIMIT": 6000,
    "POST_NMS_ROIS_TRAINING": 2000,
    "POST_NMS_ROIS_INFERENCE": 1000,
    "TRAIN_ROIS_PER_IMAGE": 200,
    "ROI_POSITIVE_RATIO": 0.33,
    "MASK_POOL_SIZE": 14,
    "BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "DETECTION_MAX_INSTANCES": 100,
    "DETECTION_MIN_CONFIDENCE": 0.7,
    "DETECTION_NMS_THRESHOLD": 0.3,
    "LEARNING_RATE": 0.001,
    "LEARNING_MOMENTUM": 0.9,
    "WEIGHT_DECAY": 0.0001,
    "GRADIENT_CLIP_NORM": 5.0,
    "TRAIN_BN": False,
}
# An image of this side is never reached: IMAGE_MAX_DIM bounds nothing but the mode "square".
NO_LIMIT = 1_000_000

PARAMETER = re.compile(r"^(kernel|bias|gamma|beta|moving_mean|moving_variance)(?:_\d+)?(?::\d+)?$")
LAYER = re.compile(
    r"conv1|bn_conv1|(res|bn)[2-5][a-z]_branch(1|2[abc])|fpn_(c\dp\d|p\d)|rpn_(conv_shared|class_raw|bbox_pred)"
    r"|mrcnn_(class_(conv|bn)[12]|class_logits|bbox_fc|mask|mask_deconv|mask_(conv|bn)[1-4])"
)
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}

# Convolutions and layers without a norm: theirs -> ours.
PLAIN = {
    **{f"fpn_c{stage}p{stage}": f"neck.lateral.{stage - 2}" for stage in range(2, 6)},
    **{f"fpn_p{stage}": f"neck.output.{stage - 2}" for stage in range(2, 6)},
    "rpn_conv_shared": "rpn.head.convs.0",
    "mrcnn_mask_deconv": "roi_heads.mask.head.upsample",
}
# Layers of the heads with the norm after them: theirs -> ours.
FOLDED = {
    ("mrcnn_class_conv1", "mrcnn_class_bn1"): "roi_heads.box.head.layers.0",
    ("mrcnn_class_conv2", "mrcnn_class_bn2"): "roi_heads.box.head.layers.1",
    **{(f"mrcnn_mask_conv{i}", f"mrcnn_mask_bn{i}"): f"roi_heads.mask.head.convs.{i - 1}" for i in range(1, 5)},
}
PREDICTORS = {
    "rpn_class_raw": "rpn.head.objectness",
    "rpn_bbox_pred": "rpn.head.deltas",
    "mrcnn_class_logits": "roi_heads.box.head.class_logits",
    "mrcnn_bbox_fc": "roi_heads.box.head.deltas",
    "mrcnn_mask": "roi_heads.mask.head.predictor",
}


def recognise(names: Collection[str]) -> bool:
    """Whether tensors of these names are such a model."""
    layers = {found[0] for name in names if (found := _place_of(name)) is not None}
    return {"rpn_conv_shared", "mrcnn_class_logits"} <= layers


def read_config(path: Path | str) -> dict[str, Any]:
    """The attributes of a Config object written as JSON.

    Raises:
        WeightsError: no file, or no JSON object.
    """
    try:
        settings = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected the attributes of a Matterport Config as JSON ({error})") from None
    if not isinstance(settings, dict):
        raise WeightsError(f"{path}: expected a JSON object of settings, found {type(settings).__name__}")
    return settings


def import_checkpoint(checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
    """A Matterport model as ours.

    Args:
        settings: the attributes of its Config by name; those that are missing take Matterport's defaults.

    Raises:
        WeightsError: layers are missing, have shapes that do not fit together, or ask for what we do not have.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    unused = []
    for name, value in checkpoint.tensors.items():
        place = _place_of(name)
        if place is None or place[1] in layers.get(place[0], {}):
            unused.append(name)
        else:
            layers.setdefault(place[0], {})[place[1]] = value.to(torch.float32)
    backbone = _backbone_names(23 if "res4g_branch2a" in layers else 6)
    wanted = [f"{conv}/kernel" for conv, _ in (*backbone, *FOLDED)] + [f"{bn}/gamma" for _, bn in (*backbone, *FOLDED)]
    wanted += [f"{layer}/{part}" for layer in (*PLAIN, *PREDICTORS) for part in ("kernel", "bias")]
    found = {f"{layer}/{part}" for layer, parts in layers.items() for part in parts}
    require_names(wanted, found, "Matterport")
    config, assumed = _config(layers, settings)
    state = _state(layers, backbone)
    with torch.device("meta"):
        check_fit(build_model(config), state, "Matterport checkpoint")
    used = {layer for pair in (*backbone, *FOLDED) for layer in pair} | PLAIN.keys() | PREDICTORS.keys()
    unused += [name for name in checkpoint.tensors if (place := _place_of(name)) and place[0] not in used]
    return Imported(config, state, assumed, tuple(unused))


def _config(
    layers: Mapping[str, Mapping[str, Tensor]], settings: Mapping[str, Any] | None
) -> tuple[Config, tuple[str, ...]]:
    """The config that shapes and settings ask for, and what had to be assumed."""
    known = {name: value for name, value in DEFAULTS.items() if name not in (settings or {})}
    use = {**DEFAULTS, **(settings or {})}
    width = {layer: parts["kernel"].shape[-1] for layer, parts in layers.items() if "kernel" in parts}
    classes, anchors = width["mrcnn_class_logits"], width["rpn_class_raw"] // 2
    _agree("NUM_CLASSES", use.get("NUM_CLASSES", classes), classes, "rows of mrcnn_class_logits")
    _agree("len(RPN_ANCHOR_RATIOS)", len(use["RPN_ANCHOR_RATIOS"]), anchors, "anchors a cell in rpn_class_raw")
    _agree("RPN_ANCHOR_STRIDE", use["RPN_ANCHOR_STRIDE"], 1, "the only one that is supported")
    _agree("BACKBONE_STRIDES", list(use["BACKBONE_STRIDES"]), [4, 8, 16, 32, 64], "the strides of a ResNet")
    _agree("IMAGE_CHANNEL_COUNT", use.get("IMAGE_CHANNEL_COUNT", 3), 3, "RGB")
    model = ModelConfig(
        num_classes=classes - 1,
        backbone=ResNetConfig(
            depth=101 if "res4g_branch2a" in layers else 50,
            width=width["res2a_branch2c"] // 4,
            stem_width=width["conv1"],
            bottleneck_width=width["res2a_branch2a"],
            pool_padding="after",
            stride_in_1x1=True,
            norm_eps=EPS,
            frozen_stages=0,
        ),
        fpn_channels=width["fpn_c2p2"],
        anchors=AnchorConfig(
            sizes=tuple((float(scale),) for scale in use["RPN_ANCHOR_SCALES"]),
            ratios=tuple(1 / ratio for ratio in use["RPN_ANCHOR_RATIOS"]),  # width / height there
        ),
        rpn=_rpn_config(use, width["rpn_conv_shared"]),
        rois=RoIConfig(op="crop", level_rounding="round"),
        box_head=BoxHeadConfig(
            resolution=layers["mrcnn_class_conv1"]["kernel"].shape[0],
            hidden=width["mrcnn_class_conv1"],
            samples=use["TRAIN_ROIS_PER_IMAGE"],
            positive_fraction=use["ROI_POSITIVE_RATIO"],
            box_weights=_box_weights(use["BBOX_STD_DEV"]),
            growth_bound="none",
            smooth_l1_beta=1.0,
            loss_box_over="offsets",
            learn_ground_truth=False,
        ),
        mask_head=MaskHeadConfig(
            resolution=use["MASK_POOL_SIZE"],
            channels=width["mrcnn_mask_conv1"],
            samples=use["TRAIN_ROIS_PER_IMAGE"],
            target_corners=True,
            target_threshold=0.5,
            paste="whole_box",
        ),
        detect=DetectConfig(
            score_threshold=use["DETECTION_MIN_CONFIDENCE"] or 0.0,
            nms_iou=use["DETECTION_NMS_THRESHOLD"],
            max_detections=use["DETECTION_MAX_INSTANCES"],
            classes="best",
            whole_boxes=True,
        ),
        last_pixel=True,
    )
    train = TrainConfig(
        learning_rate=use["LEARNING_RATE"],
        momentum=use["LEARNING_MOMENTUM"],
        weight_decay=use["WEIGHT_DECAY"],
        clip_norm=use["GRADIENT_CLIP_NORM"],
    )
    return Config(model=model, image=_image_config(use), train=train), _assumptions(use, known)


def _rpn_config(use: Mapping[str, Any], channels: int) -> RPNConfig:
    return RPNConfig(
        channels=channels,
        samples=use["RPN_TRAIN_ANCHORS_PER_IMAGE"],
        levels="together",
        pre_nms_train=use["PRE_NMS_LIMIT"],
        pre_nms_test=use["PRE_NMS_LIMIT"],
        post_nms_train=use["POST_NMS_ROIS_TRAINING"],
        post_nms_test=use["POST_NMS_ROIS_INFERENCE"],
        nms_iou=use["RPN_NMS_THRESHOLD"],
        box_weights=_box_weights(use["RPN_BBOX_STD_DEV"]),
        growth_bound="none",
        smooth_l1_beta=1.0,
        loss_box_over="offsets",
    )


def _image_config(use: Mapping[str, Any]) -> ImageConfig:
    """`utils.resize_image`. The mode "none" wants sides that are multiples of 64, which "pad64" leaves as they are."""
    red, green, blue = use["MEAN_PIXEL"]
    square, resized = use["IMAGE_RESIZE_MODE"] == "square", use["IMAGE_RESIZE_MODE"] != "none"
    long_side = use["IMAGE_MAX_DIM"] if square else NO_LIMIT
    return ImageConfig(
        short_side=min((use["IMAGE_MIN_DIM"] if resized else None) or 1, long_side),
        long_side=long_side,
        min_scale=max(1.0, (use["IMAGE_MIN_SCALE"] if resized else None) or 0.0),
        divisor=64,
        mean=(red, green, blue),
        std=(1.0, 1.0, 1.0),
        letterbox="square" if square else "divisor",
        kernel="truncated",
        rounding="half_even",
    )


def _box_weights(std_dev: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, w, h = (1 / std_dev[i] for i in XYWH)
    return x, y, w, h


def _agree(name: str, found: Any, wanted: Any, what: str) -> None:
    if found != wanted:
        raise WeightsError(
            f"Matterport config: expected {name} {wanted}, {what}, found {found}; does the config belong to this file?"
        )


def _assumptions(use: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[str, ...]:
    assumed = ["The names of the classes are not in a Matterport file."]
    if defaults:
        shown = ", ".join(f"{name} {value}" for name, value in defaults.items())
        assumed.append(f"Settings that no config gave are Matterport's defaults: {shown}.")
    if use["TRAIN_BN"] is not False:
        assumed.append(f"TRAIN_BN is {use['TRAIN_BN']}: in continued training the batch norms rest all the same.")
    if use["IMAGE_RESIZE_MODE"] == "crop":
        assumed.append("IMAGE_RESIZE_MODE crop is for training alone: images are resized as in pad64.")
    if any(weight != 1 for weight in use.get("LOSS_WEIGHTS", {}).values()):
        assumed.append(f"LOSS_WEIGHTS {use['LOSS_WEIGHTS']} are not kept: every loss counts once.")
    return tuple(assumed)


def _place_of(name: str) -> tuple[str, str] | None:
    """Layer and parameter of a path in the file. Where the graph held two models Keras numbers the layers of one."""
    *groups, last = name.split("/")
    parameter = PARAMETER.match(last)
    if parameter is None:
        return None
    for group in reversed(groups):
        for layer in (group, re.sub(r"_\d+$", "", group)):
            if LAYER.fullmatch(layer):
                return layer, parameter[1]
    return None


def _backbone_names(blocks_of_res4: int) -> dict[tuple[str, str], str]:
    """Convolution and norm of every pair in the backbone -> our module."""
    names = {("conv1", "bn_conv1"): "backbone.stem"}
    for stage, blocks in zip(range(2, 6), (3, 4, blocks_of_res4, 3), strict=True):
        for block in range(blocks):
            base = f"{stage}{chr(ord('a') + block)}_branch"
            for branch, ours in (("2a", "conv1"), ("2b", "conv2"), ("2c", "conv3"), ("1", "shortcut")):
                if branch != "1" or block == 0:
                    names[f"res{base}{branch}", f"bn{base}{branch}"] = f"backbone.res{stage}.{block}.{ours}"
    return names


def _state(layers: Mapping[str, Mapping[str, Tensor]], backbone: Mapping[tuple[str, str], str]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for (conv, bn), ours in backbone.items():
        state[f"{ours}.conv.weight"] = _from_keras(layers[conv]["kernel"])
        for our_part, part in NORM.items():
            state[f"{ours}.norm.{our_part}"] = layers[bn][part]
        if "bias" in layers[conv]:
            state[f"{ours}.norm.running_mean"] = layers[bn]["moving_mean"] - layers[conv]["bias"]
    for layer, ours in (PLAIN | PREDICTORS).items():
        state[f"{ours}.weight"], state[f"{ours}.bias"] = _from_keras(layers[layer]["kernel"]), layers[layer]["bias"]
    for (layer, bn), ours in FOLDED.items():
        gamma, beta, mean, var = (layers[bn][part] for part in NORM.values())
        kernel, bias = layers[layer]["kernel"], layers[layer]["bias"]
        # A convolution over the whole RoI is a layer, and (row, column, channel) is our order.
        weight = kernel.flatten(0, 2).T if layer.startswith("mrcnn_class") else _from_keras(kernel)
        state[f"{ours}.weight"], state[f"{ours}.bias"] = fold_norm(weight, bias, (gamma, beta, mean, var), EPS)
    for part in ("weight", "bias"):
        name = f"rpn.head.objectness.{part}"
        state[name] = state[name][1::2] - state[name][::2]  # the softmax of two is the sigmoid of their difference
        name = f"rpn.head.deltas.{part}"
        state[name] = _offsets(state[name])
        name = f"roi_heads.box.head.class_logits.{part}"
        state[name] = background_last(state[name])
        name = f"roi_heads.box.head.deltas.{part}"
        state[name] = _offsets(state[name])[4:]
        name = f"roi_heads.mask.head.predictor.{part}"
        state[name] = state[name][1:]
    return {name: value.contiguous() for name, value in state.items()}


def export_state(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our model in Matterport's names and layouts, by the paths that `save_weights` gives them.

    What was folded comes out as a norm that changes nothing; rows of a background that has no box or mask are zeros.

    Args:
        config: of a model that was imported from there.
        state: its state_dict.
    """
    assert isinstance(config.model.backbone, ResNetConfig)
    pool = config.model.box_head.resolution
    layers: dict[str, dict[str, Tensor]] = {}
    for (conv, bn), ours in _backbone_names(BLOCKS[config.model.backbone.depth][2]).items():
        weight = state[f"{ours}.conv.weight"]
        layers[conv] = {"kernel": _to_keras(weight), "bias": torch.zeros(len(weight))}
        layers[bn] = {part: state[f"{ours}.norm.{our_part}"] for our_part, part in NORM.items()}
    for layer, ours in PLAIN.items():
        layers[layer] = {"kernel": _to_keras(state[f"{ours}.weight"]), "bias": state[f"{ours}.bias"]}
    for (layer, bn), ours in FOLDED.items():
        weight, bias = state[f"{ours}.weight"], state[f"{ours}.bias"]
        if layer.startswith("mrcnn_class"):
            side = pool if layer == "mrcnn_class_conv1" else 1
            weight = weight.T.reshape(side, side, -1, len(weight))
        else:
            weight = _to_keras(weight)
        one, zero = torch.ones_like(bias), torch.zeros_like(bias)
        layers[layer] = {"kernel": weight, "bias": bias}
        layers[bn] = {"gamma": one, "beta": zero, "moving_mean": zero, "moving_variance": one - EPS}
    for layer, ours in PREDICTORS.items():
        parts = {}
        for part, name in (("kernel", "weight"), ("bias", "bias")):
            rows = _predictor_rows(layer, state[f"{ours}.{name}"])
            parts[part] = _to_keras(rows) if part == "kernel" else rows
        layers[layer] = parts
    return {
        f"{'rpn_model' if layer.startswith('rpn') else layer}/{layer}/{part}:0": value.contiguous()
        for layer, parts in layers.items()
        for part, value in parts.items()
    }


def _predictor_rows(layer: str, rows: Tensor) -> Tensor:
    """The rows of one of our predictors in Matterport's order."""
    match layer:
        case "rpn_class_raw":
            return torch.stack([torch.zeros_like(rows), rows], dim=1).flatten(0, 1)
        case "rpn_bbox_pred":
            return _offsets(rows)
        case "mrcnn_class_logits":
            return background_first(rows)
        case "mrcnn_bbox_fc":
            return torch.cat([torch.zeros_like(rows[:4]), _offsets(rows)])
        case _:
            return torch.cat([torch.zeros_like(rows[:1]), rows])


def _offsets(rows: Tensor) -> Tensor:
    """Rows in fours of y x h w as x y w h, or back."""
    return rows.view(-1, 4, *rows.shape[1:])[:, XYWH].flatten(0, 1)


def _from_keras(kernel: Tensor) -> Tensor:
    """(h, w, in, out) to (out, in, h, w); of a transposed convolution (h, w, out, in) to (in, out, h, w); of a layer
    (in, out) to (out, in)."""
    return kernel.permute(3, 2, 0, 1) if kernel.dim() == 4 else kernel.T


def _to_keras(weight: Tensor) -> Tensor:
    return weight.permute(2, 3, 1, 0) if weight.dim() == 4 else weight.T

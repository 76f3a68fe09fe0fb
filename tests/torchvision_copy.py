"""torchvision's Mask R-CNN with random weights that find many objects, and the same weights in our network."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

from maskrcnn.config import (
    AnchorConfig,
    BoxHeadConfig,
    Config,
    DetectConfig,
    HeadNorm,
    ImageConfig,
    MaskHeadConfig,
    ModelConfig,
    ResNetConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.weights.imagenet import torchvision_to_ours

CLASSES = 91  # with the background, which is class 0 there
EVERYTHING = 10**6  # a sample size that leaves nothing out, so that nothing is random
TRAIN_PROPOSALS = 50  # an image

RENAMES = (
    (r"^backbone\.fpn\.inner_blocks\.", "neck.lateral."),
    (r"^backbone\.fpn\.layer_blocks\.", "neck.output."),
    (r"^rpn\.head\.conv\.(\d)\.0\.", r"rpn.head.convs.\1."),
    (r"^rpn\.head\.cls_logits\.", "rpn.head.objectness."),
    (r"^rpn\.head\.bbox_pred\.", "rpn.head.deltas."),
    (r"^roi_heads\.box_head\.(fc6|5)\.", "roi_heads.box.head.layers.0."),
    (r"^roi_heads\.box_head\.fc7\.", "roi_heads.box.head.layers.1."),
    (r"^roi_heads\.box_head\.(\d)\.", r"roi_heads.box.head.convs.\1."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "roi_heads.box.head.class_logits."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "roi_heads.box.head.deltas."),
    (r"^roi_heads\.mask_head\.(\d)\.", r"roi_heads.mask.head.convs.\1."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "roi_heads.mask.head.upsample."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "roi_heads.mask.head.predictor."),
)


# A convolution of the pyramid or of a branch and its norm: V1 has no norm, and ours then no module around the two.
NORMED = re.compile(r"^(neck\.(?:lateral|output)\.\d|roi_heads\.(?:box|mask)\.head\.convs\.\d)\.([01])\.")


def our_name(name: str, version: int) -> str:
    """The name of one of torchvision's parameters in our network; `version` of its Mask R-CNN is 1 or 2."""
    if name.startswith("backbone.body."):
        return "backbone." + torchvision_to_ours(name.removeprefix("backbone.body."))
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    parts = {"0": ".conv." if version == 2 else ".", "1": ".norm."}
    return NORMED.sub(lambda found: found[1] + parts[found[2]], name)


def our_layout(name: str, value: Tensor) -> Tensor:
    """One of torchvision's tensors (or its gradient) as our network stores it."""
    if name in (
        "roi_heads.box_head.fc6.weight",
        "roi_heads.box_head.5.weight",
    ):  # columns (channel, row, column) to (row, column, channel)
        return value.view(len(value), 256, 7, 7).permute(0, 2, 3, 1).reshape(len(value), -1)
    if name.startswith("roi_heads.box_predictor.cls_score."):  # the background moves to the end
        return torch.cat([value[1:], value[:1]])
    if name.startswith("roi_heads.box_predictor.bbox_pred."):  # four rows of a background that has no box
        return value[4:]
    if name.startswith("roi_heads.mask_predictor.mask_fcn_logits."):
        return value[1:]
    return value


def torchvisions_rules(version: int, short_side: int, long_side: int, proposals: int, detections: int) -> Config:
    """The config in which our network follows torchvision wherever the two differ by default."""
    norm: HeadNorm = "batch_norm" if version == 2 else "none"
    return Config(
        model=ModelConfig(
            num_classes=CLASSES - 1,
            backbone=ResNetConfig(norm="frozen_batch_norm" if version == 1 else "batch_norm", norm_eps=1e-5),
            fpn_norm=norm,
            anchors=AnchorConfig(rounded=True, stride="grid"),
            rpn=RPNConfig(
                convs=version,
                min_size=1e-3,
                samples=EVERYTHING,
                positive_fraction=1.0,
                pre_nms_train=500,
                post_nms_train=TRAIN_PROPOSALS,
                post_nms_test=proposals,
            ),
            rois=RoIConfig(aligned=False),
            box_head=BoxHeadConfig(
                samples=EVERYTHING,
                positive_fraction=1.0,
                convs=4 if version == 2 else 0,
                layers=1 if version == 2 else 2,
                norm=norm,
            ),
            mask_head=MaskHeadConfig(
                norm=norm,
                samples=EVERYTHING,
                target_sampling_ratio=0,
                target_aligned=False,
                paste="expanded_box",
            ),
            detect=DetectConfig(min_size=1e-2, max_detections=detections),
        ),
        image=ImageConfig(
            short_side=short_side,
            long_side=long_side,
            mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
            std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
            kernel="bilinear",
            rounding="floor",
        ),
    )


def torchvision_model(
    version: int, short_side: int, long_side: int, proposals: int, detections: int, images: list[Tensor]
) -> nn.Module:
    """torchvision's network in evaluation mode, sampling everything when it trains.

    Random weights alone find nothing, or the same everywhere. So each layer is scaled by what it says of
    `images`: norms get their statistics (then off by a random factor), predictions a fixed spread.
    """
    torch.manual_seed(0)
    build = maskrcnn_resnet50_fpn if version == 1 else maskrcnn_resnet50_fpn_v2
    model = build(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=short_side,
        max_size=long_side,
        rpn_batch_size_per_image=EVERYTHING,
        rpn_positive_fraction=1.0,
        rpn_pre_nms_top_n_train=500,
        rpn_post_nms_top_n_train=TRAIN_PROPOSALS,
        rpn_post_nms_top_n_test=proposals,
        box_detections_per_img=detections,
        box_batch_size_per_image=EVERYTHING,
        box_positive_fraction=1.0,
    ).eval()
    spread = {
        "rpn.head.conv.0.0": 1.0,
        "rpn.head.conv.1.0": 1.0,
        "rpn.head.cls_logits": 2.0,
        "rpn.head.bbox_pred": 0.3,
        "roi_heads.box_head.fc6": 1.0,
        "roi_heads.box_head.fc7": 1.0,
        "roi_heads.box_predictor.cls_score": 3.0,
        "roi_heads.box_predictor.bbox_pred": 0.7,
        "roi_heads.box_head.5": 1.0,
        **({f"roi_heads.mask_head.{i}.0": 1.0 for i in range(4)} if version == 1 else {}),
        "roi_heads.mask_predictor.conv5_mask": 1.0,
        "roi_heads.mask_predictor.mask_fcn_logits": 2.0,
    }
    hooks = []
    for name, module in model.named_modules():
        if name in spread:
            hooks.append(module.register_forward_hook(_Spread(spread[name])))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(_statistics))
            # Blocks that change little: random ones that change much would blow up every rounding error.
            module.weight.data.uniform_(*((0.1, 0.3) if name.endswith(".bn3") else (0.6, 1.2)))
            module.bias.data.uniform_(-0.2, 0.2)
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return model


def copy_weights(model: nn.Module, version: int, config: Config) -> MaskRCNN:
    """Our network, in evaluation mode, with the weights of torchvision's."""
    network = build_model(config)
    state = {our_name(name, version): our_layout(name, value) for name, value in model.state_dict().items()}
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    if version == 1:  # a frozen norm counts nothing
        state = {name: value for name, value in state.items() if name not in counters}
    network.load_state_dict(state)
    return network.eval()


def _statistics(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Gives a norm roughly the statistics of what it sees."""
    assert isinstance(norm, nn.BatchNorm2d)
    x = inputs[0]
    norm.running_mean = x.mean((0, 2, 3)) + 0.1 * torch.randn(x.shape[1])
    norm.running_var = x.var((0, 2, 3)) * (0.7 + 0.6 * torch.rand(x.shape[1])) + 1e-3


class _Spread:
    """Scales a layer so that what it says has mean 0 and a given deviation; done once, at its first call."""

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation
        self.done = False

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if self.done:
            return None
        self.done = True
        assert isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
        channels = output.movedim(1, -1).flatten(0, -2)
        mean = channels.mean(0)
        scale = self.deviation / (channels - mean).std()
        shift = 0.3 * self.deviation * torch.randn(len(mean)) - mean * scale
        layer.weight.data *= scale
        assert layer.bias is not None
        layer.bias.data = layer.bias.data * scale + shift
        return output * scale + shift.view(1, -1, *[1] * (output.ndim - 2))

"""The block diagram: every part and number of a Mask R-CNN, in the order in which an image meets them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn.config import Config, Conventions, MaskHeadConfig, ModelConfig, TimmConfig
from maskrcnn.errors import ConfigError
from maskrcnn.models.anchors import Anchors
from maskrcnn.models.branches.box import BoxBranch
from maskrcnn.models.branches.box_head import BoxHead
from maskrcnn.models.branches.keypoint import KeypointBranch, KeypointHead
from maskrcnn.models.branches.mask import MaskBranch
from maskrcnn.models.branches.mask_head import MaskHead, MLPMaskHead
from maskrcnn.models.branches.point_rend import CoarseMaskHead, PointHead, PointRendBranch
from maskrcnn.models.fpn import FPN
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.pooler import RoIPooler
from maskrcnn.models.resnet import ResNet, res_stage, stage_channels
from maskrcnn.models.roi_heads import RoIHeads
from maskrcnn.models.rpn import RPN
from maskrcnn.models.single_level import SingleLevel
from maskrcnn.models.timm_backbone import TimmBackbone


def build_model(config: Config) -> MaskRCNN:
    """A network with random weights (torch's global generator), channels-last, in training mode.

    Raises:
        ConfigError: timm has no such backbone, it gives no features at the strides of the pyramid, or the channels of
            the images have not been measured.
        MissingPackageError: the backbone is a model of timm, and timm is not installed.
    """
    model, image, conventions = config.model, config.image, config.conventions

    mean, std = image.statistics
    recompute = config.train.activation_checkpointing
    backbone = build_backbone(model, conventions, len(mean), recompute=recompute)
    if model.neck == "fpn":
        neck: nn.Module = FPN(backbone.channels, model.fpn_channels, model.fpn_norm)
        channels, strides = model.fpn_channels, list(FPN.strides)
        roi_strides = backbone.strides  # P6 serves the RPN only
    else:
        neck = SingleLevel()
        channels, strides = backbone.channels[-1], backbone.strides[-1:]
        roi_strides = strides
    anchors = Anchors(model.anchors.sizes, model.anchors.ratios, strides, conventions.anchors)
    rpn = RPN(channels, anchors, model.rpn, conventions, image.divisor)
    roi_heads = build_roi_heads(model, conventions, channels, roi_strides, config.train.class_weights)

    network = MaskRCNN(backbone, neck, rpn, roi_heads, mean, std)
    return network.to(memory_format=torch.channels_last)


def tensors_of(config: Config) -> dict[str, Tensor]:
    """The tensors of the network by name, on the meta device: they have shapes and dtypes, and take no memory.

    Raises:
        ConfigError: as in `build_model`, or a tensor would have more elements than torch can count.
    """
    try:
        with torch.device("meta"):
            return build_model(config).state_dict()
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"the settings describe a network that is too large to be built ({reason})") from None


def build_backbone(
    model: ModelConfig, conventions: Conventions, in_channels: int = 3, *, recompute: bool = False
) -> ResNet | TimmBackbone:
    """The backbone for images of `in_channels` channels.

    With C4 it ends at res4, because `build_roi_heads` puts res5 into the heads.
    """
    if isinstance(model.backbone, TimmConfig):
        return TimmBackbone(model.backbone, in_channels)
    return ResNet(
        model.backbone,
        in_channels=in_channels,
        last_stage=4 if model.neck == "c4" else 5,
        dilated=model.neck == "dc5",
        pool_padding=conventions.features.pool_padding,
        recompute=recompute,
    )


def build_roi_heads(
    model: ModelConfig,
    conventions: Conventions,
    channels: int,
    strides: list[int],
    class_weights: tuple[float, ...] = (),
) -> RoIHeads:
    """The pooler and the box, mask and keypoint branches.

    Args:
        channels: channels of every feature map that RoIs are pooled from.
        strides: strides of these maps, finest first.
        class_weights: as in `BoxBranch`.
    """
    classes, box, mask, keypoint = model.num_classes, model.box_head, model.mask_head, model.keypoint_head

    shared_head: nn.Module = nn.Identity()
    shrink = 1  # the shared head divides the side of the RoI features by this
    if model.neck == "c4":
        shared_head, shrink = res_stage(5, model.resnet), 2
        channels = stage_channels(model.resnet)[-1]
    pooler = RoIPooler(strides, model.rois, shared_head, conventions)

    stages = 1 + len(box.cascade_ious)
    weights = conventions.cascade.weights(stages)
    unused = conventions.detections.unused_classes
    box_heads = [BoxHead(channels, -(-box.resolution // shrink), classes, box, unused) for _ in range(stages)]
    box_branch = BoxBranch(box_heads, weights, box, conventions, class_weights)

    mask_branch: MaskBranch | PointRendBranch | None = None
    if mask is not None:
        masks_per_roi = 1 if mask.class_agnostic else classes + (mask.loss == "softmax")
        if mask.point_rend is not None:
            coarse_head = CoarseMaskHead(channels, masks_per_roi, mask)
            point_head = PointHead(channels, masks_per_roi, mask.point_rend)
            mask_branch = PointRendBranch(coarse_head, point_head, classes, mask, mask.point_rend, conventions.masks)
        else:
            mask_weights = weights if conventions.cascade.mask_head_per_stage else (1.0,)
            mask_heads = [build_mask_head(mask, channels, masks_per_roi, shrink) for _ in mask_weights]
            mask_branch = MaskBranch(mask_heads, mask_weights, classes, mask, conventions.masks)

    keypoint_branch = None
    if keypoint is not None:
        rules, side = conventions.keypoints, 4 * -(-keypoint.resolution // shrink)
        keypoint_branch = KeypointBranch(KeypointHead(channels, keypoint, rules), side, keypoint, rules)
    return RoIHeads(pooler, box_branch, mask_branch, keypoint_branch, conventions)


def build_mask_head(config: MaskHeadConfig, channels: int, masks_per_roi: int, shrink: int) -> MaskHead | MLPMaskHead:
    """The fully convolutional mask head, or the MLP of the ablation.

    Args:
        channels: channels of the RoI features.
        shrink: `config.resolution` divided by this is the side of the RoI features.
    """
    if config.kind == "mlp":
        return MLPMaskHead(channels, -(-config.resolution // shrink), masks_per_roi, config)
    return MaskHead(channels, masks_per_roi, config)

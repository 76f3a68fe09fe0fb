"""Tensor names of torchvision's two-stage detectors and ResNets.

The sources are torchvision/models/detection, torchvision/models/resnet.py and
torchvision/ops/feature_pyramid_network.py.
"""

from __future__ import annotations

from maskrcnn.weights.frameworks.names import NameTable, Row, box_stages, mask_stages, under

# A convolution and the norm that may follow it, in an nn.Sequential.
SEQUENTIAL = (Row("0.{leaf}", "{.conv}.{leaf}"), Row("1.{leaf}", ".norm.{leaf}"))


def residual_block(norm: str = "bn") -> tuple[Row, ...]:
    """A block of a ResNet.

    Args:
        norm: their name of a norm, without its number.
    """
    return (
        Row("conv{c}.{leaf}", "conv{c}.conv.{leaf}"),
        Row(norm + "{c}.{leaf}", "conv{c}.norm.{leaf}"),
        Row("downsample.0.{leaf}", "shortcut.conv.{leaf}"),
        Row("downsample.1.{leaf}", "shortcut.norm.{leaf}"),
    )


def resnet(prefix: str) -> tuple[Row, ...]:
    """A whole ResNet. Their names begin with `prefix`, ours with `backbone.`."""
    return (
        Row(prefix + "conv1.{leaf}", "backbone.stem.conv.{leaf}"),
        Row(prefix + "bn1.{leaf}", "backbone.stem.norm.{leaf}"),
        *under(prefix + "layer{s-1}.{b}.", "backbone.res{s}.{b}.", residual_block()),
    )


TWO_LAYERS = {"where": ("layers.1",), "unless": ("layers.2", "convs.0")}  # a TwoMLPHead
BOX_HEAD = (
    *under("box_head.{i}.", "convs.{i}", SEQUENTIAL),
    Row("box_head.fc6.{leaf}", "layers.0.{leaf}", **TWO_LAYERS),
    Row("box_head.fc7.{leaf}", "layers.1.{leaf}", **TWO_LAYERS),
    # A FastRCNNConvFCHead is one nn.Sequential of convolutions, a Flatten, and fully connected layers with ReLUs.
    Row("box_head.{2*i+1}.{leaf}", "layers.{i}.{leaf}", unless=("convs.0",)),
    *(
        Row(
            f"box_head.{{2*i+{convs + 1}}}.{{leaf}}",
            "layers.{i}.{leaf}",
            where=(f"convs.{convs - 1}",),
            unless=(f"convs.{convs}",),
        )
        for convs in range(1, 9)
    ),
    Row("box_predictor.cls_score.{leaf}", "class_logits.{leaf}"),
    Row("box_predictor.bbox_pred.{leaf}", "deltas.{leaf}"),
)
MASK_HEAD = (
    *under("mask_head.{i}.", "convs.{i}", SEQUENTIAL),
    Row("mask_predictor.conv5_mask.{leaf}", "upsample.{leaf}"),
    Row("mask_predictor.mask_fcn_logits.{leaf}", "predictor.{leaf}"),
    Row("mask_head.mask_fcn{i+1}.{leaf}", "convs.{i}.{leaf}"),  # before version 0.13
)
TABLE = NameTable(
    (
        *resnet("backbone.body."),
        *under("backbone.fpn.inner_blocks.{i}.", "neck.lateral.{i}", SEQUENTIAL),
        *under("backbone.fpn.layer_blocks.{i}.", "neck.output.{i}", SEQUENTIAL),
        *under("rpn.head.conv.{i}.", "rpn.head.convs.{i}", SEQUENTIAL),
        Row("rpn.head.cls_logits.{leaf}", "rpn.head.objectness.{leaf}"),
        Row("rpn.head.bbox_pred.{leaf}", "rpn.head.deltas.{leaf}"),
        *box_stages("roi_heads.", None, BOX_HEAD),
        *mask_stages("roi_heads.", None, MASK_HEAD),
        Row("roi_heads.keypoint_head.{2*i}.{leaf}", "roi_heads.keypoint.head.convs.{i}.{leaf}"),
        Row("roi_heads.keypoint_predictor.kps_score_lowres.{leaf}", "roi_heads.keypoint.head.predictor.{leaf}"),
        # Names before version 0.13, which the published files of version 1 have.
        Row("backbone.fpn.inner_blocks.{i}.{leaf}", "neck.lateral.{i}.{leaf}"),
        Row("backbone.fpn.layer_blocks.{i}.{leaf}", "neck.output.{i}.{leaf}"),
        Row("rpn.head.conv.{leaf}", "rpn.head.convs.0.{leaf}"),
    )
)
BACKBONE = NameTable(resnet(""))

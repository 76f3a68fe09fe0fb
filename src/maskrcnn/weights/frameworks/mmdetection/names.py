"""Tensor names of the two-stage detectors of MMDetection 2 and 3."""

from __future__ import annotations

from maskrcnn.weights.frameworks.architecture import SHARED_HEAD
from maskrcnn.weights.frameworks.names import NameTable, Row, box_stages, mask_stages, under
from maskrcnn.weights.frameworks.torchvision.names import residual_block

# A ConvModule: a convolution and the norm that may follow it.
CONV_MODULE = (Row("conv.{leaf}", "{.conv}.{leaf}"), Row("{norm}.{leaf}", ".norm.{leaf}"))
BLOCK = (*residual_block("{norm}"), Row("conv2.conv_offset.{leaf}", "conv2.offset.{leaf}"))
BOX_HEAD = (
    *under("shared_convs.{i}.", "convs.{i}", CONV_MODULE),
    Row("shared_fcs.{i}.{leaf}", "layers.{i}.{leaf}"),
    Row("fc_cls.{leaf}", "class_logits.{leaf}"),
    Row("fc_reg.{leaf}", "deltas.{leaf}"),
)
MASK_HEAD = (
    *under("convs.{i}.", "convs.{i}", CONV_MODULE),
    Row("upsample.{leaf}", "upsample.{leaf}"),
    Row("conv_logits.{leaf}", "predictor.{leaf}"),
)
TABLE = NameTable(
    (
        Row("backbone.conv1.{leaf}", "backbone.stem.conv.{leaf}"),
        Row("backbone.{norm}1.{leaf}", "backbone.stem.norm.{leaf}"),
        *under("backbone.layer{s-1}.{b}.", "backbone.res{s}.{b}.", BLOCK),
        *under("roi_head.shared_head.layer4.{b}.", SHARED_HEAD + "{b}.", BLOCK),
        *under("neck.lateral_convs.{i}.", "neck.lateral.{i}", CONV_MODULE),
        *under("neck.fpn_convs.{i}.", "neck.output.{i}", CONV_MODULE),
        Row("rpn_head.rpn_conv.{leaf}", "rpn.head.convs.0.{leaf}", unless=("rpn.head.convs.1",)),
        Row("rpn_head.rpn_conv.{i}.conv.{leaf}", "rpn.head.convs.{i}.{leaf}"),
        Row("rpn_head.rpn_cls.{leaf}", "rpn.head.objectness.{leaf}"),
        Row("rpn_head.rpn_reg.{leaf}", "rpn.head.deltas.{leaf}"),
        *box_stages("roi_head.bbox_head.", "roi_head.bbox_head.{k}.", BOX_HEAD),
        *mask_stages("roi_head.mask_head.", "roi_head.mask_head.{k}.", MASK_HEAD),
    )
)

"""Tensor names of multimodallearning/pytorch-mask-rcnn (`model.py`)."""

from __future__ import annotations

from maskrcnn.weights.frameworks.names import NameTable, Row, box_stages, mask_stages, under

WORDS = {
    "leaf": {"weight": "weight", "bias": "bias"},
    "part": {name: name for name in ("weight", "bias", "running_mean", "running_var")},
}
LAYER = (Row(".{leaf}", ".{leaf}"),)
BACKBONE = (
    Row("C1.0.{leaf}", "stem.conv.{leaf}"),
    Row("C1.1.{part}", "stem.norm.{part}"),
    Row("C{s}.{b}.conv{c}.{leaf}", "res{s}.{b}.conv{c}.conv.{leaf}"),
    Row("C{s}.{b}.bn{c}.{part}", "res{s}.{b}.conv{c}.norm.{part}"),
    Row("C{s}.{b}.downsample.0.{leaf}", "res{s}.{b}.shortcut.conv.{leaf}"),
    Row("C{s}.{b}.downsample.1.{part}", "res{s}.{b}.shortcut.norm.{part}"),
)
BOX_HEAD = (
    *under("conv{i+1}", "layers.{i}", LAYER),
    Row("bn{i+1}.{part}", "layers.{i}.norm.{part}"),
    *under("linear_class", "class_logits", LAYER),
    *under("linear_bbox", "deltas", LAYER),
)
MASK_HEAD = (
    *under("conv5", "predictor", LAYER),  # the other convolutions have the numbers 1 to 4
    *under("conv{i+1}", "convs.{i}", LAYER),
    Row("bn{i+1}.{part}", "convs.{i}.norm.{part}"),
    *under("deconv", "upsample", LAYER),
)
TABLE = NameTable(
    (
        *under("fpn.", "backbone.", BACKBONE),
        *under("fpn.P{i+2}_conv1", "neck.lateral.{i}", LAYER),
        *under("fpn.P{i+2}_conv2.1", "neck.output.{i}", LAYER),
        *under("rpn.conv_shared", "rpn.head.convs.0", LAYER),
        *under("rpn.conv_class", "rpn.head.objectness", LAYER),
        *under("rpn.conv_bbox", "rpn.head.deltas", LAYER),
        *box_stages("classifier.", None, BOX_HEAD),
        *mask_stages("mask.", None, MASK_HEAD),
    ),
    WORDS,
)

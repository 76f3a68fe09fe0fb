"""Tensor names of tensorpack's two-stage detectors (`examples/FasterRCNN/modeling`)."""

from __future__ import annotations

from maskrcnn.weights.frameworks.architecture import SHARED_HEAD
from maskrcnn.weights.frameworks.names import NameTable, Row, box_stages, mask_stages, under

WORDS = {
    "leaf": {"W": "weight", "b": "bias"},
    "part": {"gamma": "weight", "beta": "bias", "mean/EMA": "running_mean", "variance/EMA": "running_var"},
}
LAYER = (Row("/{leaf}", ".{leaf}"),)
NORMED = (Row("/W", ".conv.weight"), Row("/{norm}/{part}", ".norm.{part}"))
BLOCK = (*under("conv{c}", "conv{c}", NORMED), *under("convshortcut", "shortcut", NORMED))
BOX_HEAD = (
    *under("conv{i}", "convs.{i}", LAYER),
    Row("fc6/{leaf}", "layers.0.{leaf}", unless=("convs.0",)),
    Row("fc7/{leaf}", "layers.1.{leaf}"),
    Row("fc/{leaf}", "layers.0.{leaf}", where=("convs.0",)),
)
BOX_OUTPUTS = (*under("class", "class_logits", LAYER), *under("box", "deltas", LAYER))
MASK_HEAD = (
    *under("fcn{i}", "convs.{i}", LAYER),
    *under("deconv", "upsample", LAYER),
    *under("conv", "predictor", LAYER),
)
TABLE = NameTable(
    (
        *under("conv0", "backbone.stem", NORMED),
        *under("group3/block{b}/", SHARED_HEAD + "{b}.", BLOCK, unless=("neck",)),
        *under("group{s-2}/block{b}/", "backbone.res{s}.{b}.", BLOCK),
        *under("fpn/lateral_1x1_c{i+2}", "neck.lateral.{i}", LAYER),
        *under("fpn/posthoc_3x3_p{i+2}", "neck.output.{i}", LAYER),
        *under("rpn/conv0", "rpn.head.convs.0", LAYER),
        *under("rpn/class", "rpn.head.objectness", LAYER),
        *under("rpn/box", "rpn.head.deltas", LAYER),
        *box_stages("fastrcnn/", "cascade_rcnn_stage{k+1}/head/", BOX_HEAD),
        *box_stages("fastrcnn/outputs/", "cascade_rcnn_stage{k+1}/outputs/", BOX_OUTPUTS, where=("neck",)),
        *box_stages("fastrcnn/", None, BOX_OUTPUTS),
        *mask_stages("maskrcnn/", None, MASK_HEAD),
    ),
    WORDS,
)

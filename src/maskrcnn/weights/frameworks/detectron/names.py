"""The names of Caffe2 blobs in Detectron's two-stage detectors (`modeling/`)."""

from __future__ import annotations

from maskrcnn.models.resnet import BLOCKS
from maskrcnn.weights.frameworks.architecture import SHARED_HEAD
from maskrcnn.weights.frameworks.names import NameTable, Row, box_stages, mask_stages, under

WORDS = {
    "leaf": {"w": "weight", "b": "bias"},
    "affine": {"s": "weight", "b": "bias"},
    "conv": {"2a": "conv1", "2b": "conv2", "2c": "conv3", "1": "shortcut"},
}
# A layer without a norm, a convolution with a norm, and a convolution that may have a group norm.
LAYER = (Row("_{leaf}", ".{leaf}"),)
NORMED = (Row("_w", ".conv.weight"), Row("_{norm}_{affine}", ".norm.{affine}"))
CONV = (Row("_{leaf}", "{.conv}.{leaf}"), Row("_gn_{affine}", ".norm.{affine}"))


def _pyramid() -> list[Row]:
    """A level is named after the last block of its stage. The convolution of the top level is not called lateral."""
    rows: list[Row] = []
    for stage in range(2, 6):
        for blocks in sorted({counts[stage - 2] for counts in BLOCKS.values()}):
            last = f"res{stage}_{blocks - 1}_sum"
            where, unless = (f"backbone.res{stage}.{blocks - 1}",), (f"backbone.res{stage}.{blocks}",)
            inner = f"fpn_inner_{last}{'_lateral' if stage < 5 else ''}"
            rows += under(inner, f"neck.lateral.{stage - 2}", CONV, where, unless)
            rows += under(f"fpn_{last}", f"neck.output.{stage - 2}", CONV, where, unless)
    return rows


def _proposals(theirs: str, ours: str) -> list[Row]:
    """With a pyramid, a layer of the RPN is named after the first level, P2."""
    return [*under(f"{theirs}_fpn2", ours, LAYER, where=("neck",)), *under(theirs, ours, LAYER)]


BOX_HEAD = (
    *under("fc{i+6}", "layers.{i}", LAYER),
    *under("cls_score", "class_logits", LAYER),
    *under("bbox_pred", "deltas", LAYER),
    *under("head_conv{i+1}", "convs.{i}", CONV),
)
MASK_HEAD = (
    *under("_[mask]_fcn{i+1}", "convs.{i}", CONV),
    *under("conv5_mask", "upsample", LAYER),
    *under("mask_fcn_logits", "predictor", LAYER),
    *(row for name in ("_mask_fcn", "mask_fcn") for row in under(name + "{i+1}", "convs.{i}", CONV)),
)
TABLE = NameTable(
    (
        Row("conv1_w", "backbone.stem.conv.weight"),
        Row("res_conv1_bn_{affine}", "backbone.stem.norm.{affine}", where=("backbone.stem.norm.running_var",)),
        Row("conv1_gn_{affine}", "backbone.stem.norm.{affine}"),
        *under("res5_{b}_branch{conv}", SHARED_HEAD + "{b}.{conv}", NORMED, unless=("neck",)),
        *under("res{s}_{b}_branch{conv}", "backbone.res{s}.{b}.{conv}", NORMED),
        *_pyramid(),
        *_proposals("conv_rpn", "rpn.head.convs.0"),
        *_proposals("rpn_cls_logits", "rpn.head.objectness"),
        *_proposals("rpn_bbox_pred", "rpn.head.deltas"),
        *box_stages("", None, BOX_HEAD),
        *mask_stages("", None, MASK_HEAD),
        *under("conv_fcn{i+1}", "roi_heads.keypoint.head.convs.{i}", LAYER),
        *under("kps_score_lowres", "roi_heads.keypoint.head.predictor", LAYER),
    ),
    WORDS,
)
# Blobs that do not change the results: the bias of the first convolution, which is not used, and the fixed bilinear
# kernel that enlarges the keypoint heatmaps.
WITHOUT_EFFECT = frozenset({"conv1_b", "kps_score_w", "kps_score_b"})

"""Tensor names of Detectron2's two-stage detectors (`modeling/`, `projects/PointRend`)."""

from __future__ import annotations

from maskrcnn.weights.frameworks.architecture import SHARED_HEAD
from maskrcnn.weights.frameworks.names import NameTable, Row, box_stages, mask_stages, under

RPN_HEAD = "proposal_generator.rpn_head."
COARSE_HEAD, POINT_HEAD = "roi_heads.mask.coarse_head.", "roi_heads.mask.point_head."

# A convolution with a norm, and a convolution that may have one.
NORMED = (Row(".{leaf}", ".conv.{leaf}"), Row(".norm.{leaf}", ".norm.{leaf}"))
CONV = (Row(".{leaf}", "{.conv}.{leaf}"), Row(".norm.{leaf}", ".norm.{leaf}"))
BLOCK = (
    *under("conv{c}", "conv{c}", NORMED),
    *under("shortcut", "shortcut", NORMED),
    Row("conv2_offset.{leaf}", "conv2.offset.{leaf}"),
)
TRUNK = (*under("stem.conv1", "stem", NORMED), *under("res{s}.{b}.", "res{s}.{b}.", BLOCK))
BOX_HEAD = (*under("conv{i+1}", "convs.{i}", CONV), Row("fc{i+1}.{leaf}", "layers.{i}.{leaf}"))
BOX_PREDICTOR = (Row("cls_score.{leaf}", "class_logits.{leaf}"), Row("bbox_pred.{leaf}", "deltas.{leaf}"))
MASK_HEAD = (
    *under("mask_fcn{i+1}", "convs.{i}", CONV),
    Row("deconv.{leaf}", "upsample.{leaf}"),
    Row("predictor.{leaf}", "predictor.{leaf}"),
)
COARSE = (
    Row("reduce_spatial_dim_conv.{leaf}", "reduce.{leaf}"),
    Row("fc{i+1}.{leaf}", "layers.{i}.{leaf}"),
    Row("prediction.{leaf}", "predictor.{leaf}"),
    Row("coarse_mask_fc{i+1}.{leaf}", "layers.{i}.{leaf}"),  # before 2020-06
)
POINTS = (Row("fc{i+1}.{leaf}", "layers.{i}.{leaf}"), Row("predictor.{leaf}", "predictor.{leaf}"))
TABLE = NameTable(
    (
        *under("backbone.bottom_up.", "backbone.", TRUNK, where=("neck",)),
        *under("backbone.", "backbone.", TRUNK, unless=("neck",)),
        *under("roi_heads.res5.{b}.", SHARED_HEAD + "{b}.", BLOCK),
        *under("backbone.fpn_lateral{i+2}", "neck.lateral.{i}", CONV),
        *under("backbone.fpn_output{i+2}", "neck.output.{i}", CONV),
        Row(RPN_HEAD + "conv.{leaf}", "rpn.head.convs.0.{leaf}", unless=("rpn.head.convs.1",)),
        Row(RPN_HEAD + "conv.conv{i}.{leaf}", "rpn.head.convs.{i}.{leaf}"),
        Row(RPN_HEAD + "objectness_logits.{leaf}", "rpn.head.objectness.{leaf}"),
        Row(RPN_HEAD + "anchor_deltas.{leaf}", "rpn.head.deltas.{leaf}"),
        *box_stages("roi_heads.box_head.", "roi_heads.box_head.{k}.", BOX_HEAD),
        *box_stages("roi_heads.box_predictor.", "roi_heads.box_predictor.{k}.", BOX_PREDICTOR),
        *mask_stages("roi_heads.mask_head.", None, MASK_HEAD),
        *under("roi_heads.mask_head.coarse_head.", COARSE_HEAD, COARSE),
        *under("roi_heads.mask_head.point_head.", POINT_HEAD, POINTS),
        *under(
            "roi_heads.keypoint_head.conv_fcn{i+1}.", "roi_heads.keypoint.head.convs.{i}.", (Row("{leaf}", "{leaf}"),)
        ),
        Row("roi_heads.keypoint_head.score_lowres.{leaf}", "roi_heads.keypoint.head.predictor.{leaf}"),
        # Before 2020-06 PointRend kept its heads outside the mask head.
        *under("roi_heads.mask_coarse_head.", COARSE_HEAD, COARSE),
        *under("roi_heads.mask_point_head.", POINT_HEAD, POINTS),
    )
)
BACKBONE = NameTable(under("", "backbone.", TRUNK))

"""Tensor names of maskrcnn-benchmark's two-stage detectors (`modeling/`)."""

from __future__ import annotations

from maskrcnn.weights.frameworks.architecture import SHARED_HEAD
from maskrcnn.weights.frameworks.names import NameTable, Row, box_stages, mask_stages, under
from maskrcnn.weights.frameworks.torchvision.names import SEQUENTIAL, residual_block

BOX_RES5 = "roi_heads.box.feature_extractor.head.layer4."

# A convolution, or an nn.Sequential of a convolution and a norm.
CONV = (Row(".{leaf}", ".{leaf}"), *under(".", "", SEQUENTIAL))
BOX_HEAD = (
    Row("feature_extractor.fc{i+6}.{leaf}", "layers.{i}.{leaf}"),
    Row("predictor.cls_score.{leaf}", "class_logits.{leaf}"),
    Row("predictor.bbox_pred.{leaf}", "deltas.{leaf}"),
    # An nn.Sequential of convolution and ReLU in turn, or of convolution, norm and ReLU in turn.
    Row("feature_extractor.xconvs.{2*i}.{leaf}", "convs.{i}.{leaf}", unless=("convs.0.norm",)),
    Row("feature_extractor.xconvs.{3*i}.{leaf}", "convs.{i}.conv.{leaf}"),
    Row("feature_extractor.xconvs.{3*i+1}.{leaf}", "convs.{i}.norm.{leaf}"),
)
MASK_HEAD = (
    *under("feature_extractor.mask_fcn{i+1}", "convs.{i}", CONV),
    Row("predictor.conv5_mask.{leaf}", "upsample.{leaf}"),
    Row("predictor.mask_fcn_logits.{leaf}", "predictor.{leaf}"),
)
TABLE = NameTable(
    (
        Row("backbone.body.stem.conv1.{leaf}", "backbone.stem.conv.{leaf}"),
        Row("backbone.body.stem.bn1.{leaf}", "backbone.stem.norm.{leaf}"),
        *under("backbone.body.layer{s-1}.{b}.", "backbone.res{s}.{b}.", residual_block()),
        *under(BOX_RES5 + "{b}.", SHARED_HEAD + "{b}.", residual_block()),
        *under("backbone.fpn.fpn_inner{i+1}", "neck.lateral.{i}", CONV),
        *under("backbone.fpn.fpn_layer{i+1}", "neck.output.{i}", CONV),
        Row("rpn.head.conv.{leaf}", "rpn.head.convs.0.{leaf}"),
        Row("rpn.head.cls_logits.{leaf}", "rpn.head.objectness.{leaf}"),
        Row("rpn.head.bbox_pred.{leaf}", "rpn.head.deltas.{leaf}"),
        *box_stages("roi_heads.box.", None, BOX_HEAD),
        *mask_stages("roi_heads.mask.", None, MASK_HEAD),
        Row("roi_heads.keypoint.feature_extractor.conv_fcn{i+1}.{leaf}", "roi_heads.keypoint.head.convs.{i}.{leaf}"),
        Row("roi_heads.keypoint.predictor.kps_score_lowres.{leaf}", "roi_heads.keypoint.head.predictor.{leaf}"),
    )
)

"""Names the model of a file that no importer recognises, from its tensor names, and says what can be done with it."""

from __future__ import annotations

import re
from collections.abc import Collection

NO_MASK_RCNN = "it has other parts than a Mask R-CNN, so that no conversion is possible"
BACKBONE = "it has no detector: begin a training from it with `maskrcnn train --weights`"

# A pattern of tensor names, the family that has them, and advice. The first pattern that matches decides.
FAMILIES = (
    (r"^rpn\.head\.objectness\.", "a training checkpoint of this package", "give the model.safetensors beside it"),
    (r"^(proposal_generator|roi_heads\.(box_predictor|mask_head|res5))\.", "Detectron2", ""),
    (r"^roi_heads\.box\.(predictor|feature_extractor)\.", "maskrcnn-benchmark", ""),
    (r"^roi_head\.bbox_head\.", "MMDetection 2 or 3", ""),
    (r"^bbox_head\.fc_cls\.", "MMDetection 1", ""),
    (r"(^|/)mrcnn_(class|bbox|mask)|^rpn_model/", "Matterport's Mask_RCNN", ""),
    (r"^conv_rpn(_fpn\d)?_w$|^res\d_\d_branch2", "Detectron", ""),
    (r"^(fastrcnn|maskrcnn)/|^group0/block0/", "tensorpack", ""),
    (r"^(image_encoder|sam_prompt_encoder|prompt_encoder|mask_decoder)\.", "Segment Anything (SAM)", NO_MASK_RCNN),
    (r"^(model\.)?model\.\d+\.|^backbone\.(stem|stage\d)\..*\.main_conv\.", "YOLO", NO_MASK_RCNN),
    (r"^(backbone\.backbone|backbone)\.dark\d\.", "YOLOX", NO_MASK_RCNN),
    (r"sampling_offsets\.", "Deformable DETR or one of its relatives (DINO, Mask2Former)", NO_MASK_RCNN),
    (r"^(detr\.)?(transformer\.(encoder|decoder)\.|class_embed\.|query_embed\.)", "DETR", NO_MASK_RCNN),
    (r"^sem_seg_head\.predictor\.", "MaskFormer", NO_MASK_RCNN),
    (r"^head\.(classification|regression)_head\.module_list\.", "SSD", NO_MASK_RCNN),
    (
        r"^(bbox_head\.(cls|reg)_convs\.\d+\.conv|neck\.l2_norm)\.weight$",
        "SSD or RetinaNet of MMDetection",
        NO_MASK_RCNN,
    ),
    (r"bbox_ctrness|centerness|conv_centerness", "FCOS", NO_MASK_RCNN),
    (r"^head\.(classification_head|cls_subnet|bbox_subnet)\.|retina_(cls|reg)", "RetinaNet", NO_MASK_RCNN),
    (r"^(class_net|box_net)\.|^fpn\.cell\.", "EfficientDet", NO_MASK_RCNN),
    (r"^(hm|wh|reg)\.\d\.|^heatmap_head\.", "CenterNet", NO_MASK_RCNN),
    (r"^decode_head\.|^(aux_)?classifier\.\d\.\d", "a network of semantic segmentation", NO_MASK_RCNN),
    (r"^(fc|head\.fc|head|classifier|classifier\.\d)\.weight$", "a classifier (timm, torchvision)", BACKBONE),
    (r"^(layer4|stages\.3|stem\.conv1|res5)\.", "a backbone", BACKBONE),
)


def family_of(names: Collection[str]) -> tuple[str, str]:
    """The family of a file and advice on what to do with it. Both are empty if the family is not known."""
    for pattern, family, advice in FAMILIES:
        if any(re.search(pattern, name) for name in names):
            return family, advice
    return "", ""
